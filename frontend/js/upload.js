// Wires the sealing form (ui.seal_upload) to seal.js and transfer.js.
import { mediaTypeOf, Sealer, SealError, supported } from "./seal.js";
import { Transfer } from "./transfer.js";

const NO_WEBCRYPTO = "This browser cannot encrypt the file (it lacks X25519, or the page did not come over HTTPS). "
  + "Use an up-to-date browser, or the command line on your own machine: strongroom dataset upload.";

const size = (bytes) => {
  const unit = bytes >= 1e9 ? [1e9, "GB"] : bytes >= 1e6 ? [1e6, "MB"] : [1e3, "kB"];
  return `${(bytes / unit[0]).toFixed(1)} ${unit[1]}`;
};

class Form {
  #form; #transfer = null; #file = null; #abort = null; #tenth = -1;

  constructor(form) {
    this.#form = form;
    this.find = (selector) => form.querySelector(selector);
    form.addEventListener("submit", (event) => { event.preventDefault(); this.#start(); });
    this.find("[data-seal-pause]").addEventListener("click", () => this.#abort?.abort(new SealError("Paused. Press Resume to go on.")));
    addEventListener("beforeunload", (event) => { if (this.#abort) event.preventDefault(); });
    supported().then((yes) => {
      if (yes) return;
      this.#error(NO_WEBCRYPTO);
      this.find("[data-seal-start]").disabled = true;
    });
  }

  #csrf = () => document.cookie.match(/(?:^|; )csrftoken=([^;]+)/)?.[1] ?? this.#form.dataset.csrf;

  async #start() {
    if (this.#abort) return; // a second click
    const { dataset, version, uploadUrl, finishUrl, doneUrl, brokerKey } = this.#form.dataset;
    const file = this.find("input[type=file]").files[0];
    this.#error("");
    if (!file) return this.#error("Choose a file: the data file");
    this.#abort = new AbortController();
    this.#busy(true);
    try {
      if (file !== this.#file) {
        const mediaType = await mediaTypeOf(file);
        if (this.#form.dataset.mediaType && mediaType !== this.#form.dataset.mediaType) {
          throw new SealError("This upload was begun for the other kind of file (CSV or Parquet). Choose a file of that kind, or begin again.");
        }
        const sealer = await Sealer.create(file, { dataset, version: Number(version), recipient: JSON.parse(brokerKey), mediaType });
        this.#transfer = new Transfer(sealer, {
          uploadUrl, csrf: this.#csrf,
          onProgress: (sent, total) => this.#progress(sent, total),
          onWait: (seconds) => this.#say(`The server or the connection failed. Trying again in ${seconds} ${seconds === 1 ? "second" : "seconds"}.`),
        });
        this.#file = file;
      }
      this.#tenth = -1;
      this.#say("Encrypting and sending.");
      await this.#transfer.run(this.#abort.signal);
      this.#say("Everything is sent. Registering the sealed file.");
      const answer = await this.#transfer.finish(finishUrl, this.#abort.signal);
      this.#say("The sealed file is registered.");
      this.#abort = null;
      location.assign(answer.next ?? doneUrl);
    } catch (error) {
      this.#abort = null;
      this.#busy(false, this.#file ? "Resume" : "Encrypt and upload");
      if (!(error instanceof SealError)) console.error(error);
      const words = error instanceof SealError ? error.message : "The file could not be encrypted. Reload the page and try again.";
      if (words.startsWith("Paused")) return this.#say(words);
      if (/start (the upload )?again|choose it again/i.test(words)) this.#file = null;
      this.#error(words);
    }
  }

  #busy(on, words = "Resume") {
    this.find("[data-seal-progress]").hidden = !on && this.find("progress").value === 0;
    this.find("[data-seal-pause]").hidden = !on;
    const button = this.find("[data-seal-start]");
    button.disabled = on;
    button.textContent = on ? "Uploading" : words;
    this.find("input[type=file]").disabled = on;
  }

  #progress(sent, total) {
    const percent = Math.floor((100 * sent) / total);
    this.find("progress").value = percent;
    // Said aloud each tenth, not each chunk.
    if (Math.floor(percent / 10) === this.#tenth) return;
    this.#tenth = Math.floor(percent / 10);
    this.#say(`${percent}% sent (${size(sent)} of ${size(total)})`);
  }

  #say(words) { this.find("[data-seal-status]").textContent = words; }

  #error(words) {
    const box = this.find(".govuk-error-message");
    box.textContent = words;
    box.hidden = !words;
    this.find(".govuk-form-group").classList.toggle("govuk-form-group--error", Boolean(words));
    if (words) this.#say("");
  }
}

for (const form of document.querySelectorAll("form[data-seal-upload]")) new Form(form);
