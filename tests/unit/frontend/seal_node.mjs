// Drives the browser's sealing modules from the tests. Usage: node seal_node.mjs COMMAND JSON ; prints one JSON document.
import { openAsBlob, createWriteStream } from "node:fs";
import { once } from "node:events";
import { join } from "node:path";
import { pathToFileURL } from "node:url";

const [command, text] = process.argv.slice(2);
const options = JSON.parse(text);
const load = (name) => import(pathToFileURL(join(options.js, name)).href);
const say = (value) => process.stdout.write(JSON.stringify(value));

const { Sha256 } = await load("sha256.js");
const { Sealer, SealError, wrapKey, fromBase64, toBase64, dataKeyInfo, mediaTypeOf } = await load("seal.js");
const { Transfer } = await load("transfer.js");

async function open() {
  const file = await openAsBlob(options.file);
  file.name = options.file;
  return file;
}

const commands = {
  async hash() {
    const hash = new Sha256();
    const bytes = new Uint8Array(await (await open()).arrayBuffer());
    for (let at = 0, i = 0; at < bytes.length; i++) {
      const step = options.steps[i % options.steps.length];
      hash.update(bytes.subarray(at, at + step));
      at += step;
    }
    say({ sha256: hash.hex() });
  },

  async wrap() {
    say({ wrapped: toBase64(await wrapKey(fromBase64(options.key), options.recipient, dataKeyInfo(options.dataset, options.version))) });
  },

  async seal() {
    const sealer = await Sealer.create(await open(), options);
    const out = createWriteStream(options.out);
    const started = performance.now();
    while (!sealer.done) if (!out.write(await sealer.next())) await once(out, "drain");
    out.end();
    await once(out, "finish");
    say({ header: sealer.sealHeader(), seconds: (performance.now() - started) / 1000, rss: process.resourceUsage().maxRSS * 1024 });
  },

  async type() {
    say({ type: await mediaTypeOf(await open()) });
  },

  async upload() {
    const sealer = await Sealer.create(await open(), options);
    const waits = [];
    const transfer = new Transfer(sealer, { uploadUrl: options.uploadUrl, csrf: () => "token-1", baseDelay: 5, onWait: (s) => waits.push(s) });
    const abort = new AbortController();
    if (options.pauseFirst) {
      abort.abort(new SealError("Paused"));
      await transfer.run(abort.signal).then(() => { throw new Error("did not pause"); }, () => {});
    }
    await transfer.run(new AbortController().signal);
    const answer = await transfer.finish(options.finishUrl, new AbortController().signal);
    say({ answer, waits: waits.length });
  },
};

try {
  await commands[command]();
} catch (error) {
  say({ refused: error instanceof SealError ? error.message : `${error.name}: ${error.message}` });
}
