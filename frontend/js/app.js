import { initAll } from "./govuk-frontend.min.js";

initAll();

// Live panels (htmx): say aloud only what changed in words, not each tick of a clock.
const announcer = document.getElementById("announcer");
document.body.addEventListener("htmx:afterSettle", (event) => {
  const words = event.target.querySelector("[data-announce]")?.dataset.announce ?? event.target.dataset.announce;
  if (announcer && words && announcer.textContent !== words) announcer.textContent = words;
});

// Copy buttons exist only where scripts run.
for (const button of document.querySelectorAll("[data-copy]")) {
  const source = document.getElementById(button.dataset.copy);
  if (!source || !navigator.clipboard) continue;
  button.hidden = false;
  button.addEventListener("click", async () => {
    try {
      await navigator.clipboard.writeText(source.textContent.trim());
      button.textContent = "Copied";
    } catch {
      button.textContent = "Select the text and copy it by hand";
    }
  });
}

// Two minutes before the session ends: say so, and offer to stay (WCAG 2.2.1).
const session = document.getElementById("session-warning");
const seconds = Number(session?.dataset.seconds);
if (session && seconds > 180) {
  let timer;
  const start = () => {
    clearTimeout(timer);
    session.hidden = true;
    timer = setTimeout(() => { session.hidden = false; }, (seconds - 120) * 1000);
  };
  session.querySelector("button").addEventListener("click", async () => {
    const answer = await fetch(session.dataset.keepUrl, { method: "GET", credentials: "same-origin" }).catch(() => null);
    if (answer?.ok && !answer.redirected) start();
    else session.querySelector("p").textContent = "You have been signed out. Copy any text you want to keep, then sign in again.";
  });
  start();
}
