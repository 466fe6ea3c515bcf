// Sends a sealed file in parts and survives broken connections. The server keeps the offset: HEAD asks for it, PATCH adds to it.
import { concat, SealError } from "./seal.js";

const CHUNK_SEGMENTS = 4;
const TRIES = 8;

const pause = (ms, signal) => new Promise((resolve, reject) => {
  const stop = () => { clearTimeout(timer); reject(signal.reason); };
  const timer = setTimeout(() => { signal?.removeEventListener("abort", stop); resolve(); }, ms);
  signal?.addEventListener("abort", stop, { once: true });
});

/** The sentence that a refusal carries, whatever its shape. */
async function sentence(response, fallback) {
  try {
    const body = await response.json();
    return body.detail ?? body.message ?? fallback;
  } catch {
    return fallback;
  }
}

/**
 * One upload of one Sealer. `run` may be called again after it failed or was paused: it goes on where the server stands.
 * Options: uploadUrl, csrf (function that gives the token), onProgress(sent, total), onWait(seconds, what), baseDelay (ms).
 */
export class Transfer {
  #sealer; #options; #kept = new Uint8Array(0); #keptFrom = 0; #started = false;

  constructor(sealer, options) {
    this.#sealer = sealer;
    this.#options = { baseDelay: 1000, onProgress() {}, onWait() {}, ...options };
  }

  /** Send everything. Resolves when the server holds the whole file; rejects with a SealError that says what to do. */
  async run(signal) {
    const { onProgress } = this.#options;
    let offset = await this.#begin(signal);
    while (offset < this.#sealer.size) {
      const keptTo = this.#keptFrom + this.#kept.length;
      if (offset < this.#keptFrom || offset > keptTo) {
        throw new SealError("The server lost part of what was sent. Start the upload again: it gets a new key.");
      }
      if (offset === keptTo) await this.#fill(keptTo);
      offset = await this.#send(this.#kept.subarray(offset - this.#keptFrom), offset, signal);
      onProgress(offset, this.#sealer.size);
    }
  }

  /** POST the seal header. Resolves to the server's answer (an object, empty when it sent no JSON). */
  async finish(url, signal) {
    const response = await this.#retry(signal, () => fetch(url, {
      method: "POST", credentials: "same-origin", signal,
      headers: { "Content-Type": "application/json", Accept: "application/json", "X-CSRFToken": this.#options.csrf() },
      body: JSON.stringify(this.#sealer.sealHeader()),
    }));
    if (!response.ok) throw new SealError(await sentence(response, "The server refused the sealed file. Nothing was registered."));
    return response.json().catch(() => ({}));
  }

  async #fill(from) {
    const parts = [];
    while (parts.length < CHUNK_SEGMENTS && !this.#sealer.done) parts.push(await this.#sealer.next());
    this.#kept = concat(...parts);
    this.#keptFrom = from;
  }

  async #begin(signal) {
    let offset = await this.#offset(signal);
    if (!this.#started && offset > 0) {
      // Left over from a page that is gone, and its key with it: those bytes can never be completed.
      await this.#retry(signal, () => fetch(this.#options.uploadUrl, {
        method: "DELETE", credentials: "same-origin", headers: { "X-CSRFToken": this.#options.csrf() }, signal,
      }));
      offset = await this.#offset(signal);
      if (offset > 0) {
        throw new SealError(
          "An earlier upload of this version was not finished, and its key is gone with its page. Give that upload up, then start a new version.",
        );
      }
    }
    this.#started = true;
    return offset;
  }

  async #offset(signal) {
    const response = await this.#retry(signal, () => fetch(this.#options.uploadUrl, {
      method: "HEAD", credentials: "same-origin", cache: "no-store", signal,
    }));
    const offset = Number(response.headers.get("Upload-Offset") ?? NaN);
    if (!response.ok || !Number.isSafeInteger(offset)) throw new SealError(explain(response));
    return offset;
  }

  async #send(bytes, offset, signal) {
    for (let tries = 0; ; tries++) {
      const response = await this.#attempt(signal, () => fetch(this.#options.uploadUrl, {
        method: "PATCH", credentials: "same-origin", body: bytes, signal,
        headers: {
          "Content-Type": "application/offset+octet-stream", "Upload-Offset": String(offset),
          "Upload-Length": String(this.#sealer.size),
          "X-CSRFToken": this.#options.csrf(), Accept: "application/json",
        },
      }));
      if (response?.ok && !response.redirected) return Number(response.headers.get("Upload-Offset") ?? offset + bytes.length);
      if (response && response.status !== 409 && !worthRetrying(response.status)) {
        throw new SealError(await sentence(response, explain(response)));
      }
      if (tries >= TRIES) throw new SealError("The connection keeps breaking. What was sent is kept: press Resume to go on.");
      if (response?.status !== 409) await this.#wait(tries, signal);
      const now = await this.#offset(signal); // part of the chunk may have arrived
      if (now !== offset) return now;
    }
  }

  async #retry(signal, request) {
    for (let tries = 0; ; tries++) {
      const response = await this.#attempt(signal, request);
      if (response && !worthRetrying(response.status)) return response;
      if (tries >= TRIES) throw new SealError("The server cannot be reached. What was sent is kept: press Resume to go on.");
      await this.#wait(tries, signal);
    }
  }

  async #attempt(signal, request) {
    try {
      return await request();
    } catch (error) {
      if (signal?.aborted) throw signal.reason;
      if (error instanceof TypeError) return null; // fetch's word for "the network failed"
      throw error;
    }
  }

  async #wait(tries, signal) {
    const ms = Math.min(this.#options.baseDelay * 2 ** tries, 30_000);
    this.#options.onWait(Math.ceil(ms / 1000));
    await pause(ms, signal);
  }
}

const worthRetrying = (status) => status === 408 || status === 429 || status >= 500;

function explain({ status, redirected }) {
  if (redirected || status === 401 || status === 403) return "You are signed out or may not do this. Sign in in another tab, then press Resume.";
  if (status === 404) return "This upload does not exist any more. Go back to the dataset and start again.";
  if (status === 413) return "The file is larger than this portal accepts. Ask the operator, or upload a smaller file.";
  return `The server did not accept the upload (answer ${status}). Press Resume to try again.`;
}
