// Builds frontend/static/dist: one stylesheet, and the scripts as ES modules. Writes nothing else, fetches nothing.
import { copyFileSync, mkdirSync, readdirSync, rmSync, writeFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { join } from "node:path";
import * as sass from "sass";

const here = fileURLToPath(new URL(".", import.meta.url));
const dist = join(here, "static", "dist");
const modules = join(here, "node_modules");

rmSync(dist, { recursive: true, force: true });
mkdirSync(dist, { recursive: true });

const { css } = sass.compile(join(here, "scss", "app.scss"), {
  style: "compressed",
  loadPaths: [modules],
  quietDeps: true,
});
if (/@font-face|url\(["']?(https?:)?\/\//.test(css)) {
  throw new Error("app.css names a font file or an outside address: the portal serves everything itself");
}
writeFileSync(join(dist, "app.css"), css);

copyFileSync(join(modules, "govuk-frontend", "dist", "govuk", "govuk-frontend.min.js"), join(dist, "govuk-frontend.min.js"));
for (const name of readdirSync(join(here, "js")).sort()) {
  if (name.endsWith(".js")) copyFileSync(join(here, "js", name), join(dist, name));
}
console.log(`app.css ${(css.length / 1024).toFixed(0)} kB; scripts: ${readdirSync(dist).filter((n) => n.endsWith(".js")).join(", ")}`);
