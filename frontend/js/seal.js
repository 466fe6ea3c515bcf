// Sealing in the browser: the same file as `strongroom dataset upload` writes, so that plaintext never leaves the machine.
//
// File: Tink's AES256_GCM_HKDF_1MB streaming format. Data key: wrapped by HPKE (RFC 9180, single shot, base mode,
// DHKEM(X25519, HKDF-SHA256), HKDF-SHA256, AES-256-GCM) to the key broker. Both are bound to dataset and version.
import { Sha256 } from "./sha256.js";

export const FORMAT = "tink-aes256-gcm-hkdf-1mb";
export const SEGMENT = 2 ** 20;
export const HEADER = 40; // length byte, 32 bytes of salt, 7 bytes of nonce prefix
export const TAG = 16;

const subtle = globalThis.crypto?.subtle;
const utf8 = new TextEncoder();

/** Does this browser have what sealing needs? Resolves to true or false. */
export async function supported() {
  if (!subtle) return false; // also the case on a page that came over plain HTTP from another machine
  try {
    await subtle.generateKey({ name: "X25519" }, false, ["deriveBits"]);
    return true;
  } catch {
    return false;
  }
}

export function concat(...parts) {
  const out = new Uint8Array(parts.reduce((sum, part) => sum + part.length, 0));
  let at = 0;
  for (const part of parts) { out.set(part, at); at += part.length; }
  return out;
}

export function toBase64(bytes) {
  return btoa(Array.from(bytes, (byte) => String.fromCharCode(byte)).join(""));
}

export function fromBase64(text) {
  return Uint8Array.from(atob(text), (char) => char.charCodeAt(0));
}

/** label || 0x00 || canonical JSON of {dataset, version}: the names are in order and need no escaping. */
function binding(label, dataset, version) {
  if (!/^[0-9a-f-]{36}$/.test(dataset) || !Number.isSafeInteger(version) || version < 1) {
    throw new Error("A dataset is named by its UUID, and versions count from 1.");
  }
  return concat(utf8.encode(label), Uint8Array.of(0), utf8.encode(JSON.stringify({ dataset, version })));
}

export const associatedData = (dataset, version) => binding("strongroom/1/dataset", dataset, version);
export const dataKeyInfo = (dataset, version) => binding("strongroom/1/data-key", dataset, version);

// --- HPKE ------------------------------------------------------------------------------------------------------

const KEM_SUITE = concat(utf8.encode("KEM"), Uint8Array.of(0, 0x20));
const HPKE_SUITE = concat(utf8.encode("HPKE"), Uint8Array.of(0, 0x20, 0, 1, 0, 2));
const EMPTY = new Uint8Array(0);

async function hmac(key, data) {
  // HMAC pads its key with zeros, so an absent salt is 32 zero bytes; WebCrypto refuses an empty key.
  const raw = key.length ? key : new Uint8Array(32);
  const imported = await subtle.importKey("raw", raw, { name: "HMAC", hash: "SHA-256" }, false, ["sign"]);
  return new Uint8Array(await subtle.sign("HMAC", imported, data));
}

const labeledExtract = (suite, salt, label, ikm) => hmac(salt, concat(utf8.encode("HPKE-v1"), suite, utf8.encode(label), ikm));

async function labeledExpand(suite, prk, label, info, length) {
  // Never more than one block of SHA-256 here, so the expansion is its first round.
  const prefix = concat(Uint8Array.of(length >> 8, length & 255), utf8.encode("HPKE-v1"), suite, utf8.encode(label));
  return (await hmac(prk, concat(prefix, info, Uint8Array.of(1)))).subarray(0, length);
}

/** Encrypt `dataKey` to a key object {suite, public, id}, bound to `info`. Resolves to enc || ciphertext. */
export async function wrapKey(dataKey, recipient, info) {
  if (recipient.suite !== "x25519") throw new Error(`This browser page cannot use the key suite ${recipient.suite}.`);
  const theirs = fromBase64(recipient.public);
  if (theirs.length !== 32) throw new Error("The key broker's public key is not a usable one.");
  const id = new Sha256().update(theirs).hex().slice(0, 16);
  if (id !== recipient.id) throw new Error("The key broker's public key does not match its name.");

  const publicKey = await subtle.importKey("raw", theirs, { name: "X25519" }, false, []);
  const ephemeral = await subtle.generateKey({ name: "X25519" }, true, ["deriveBits"]);
  const enc = new Uint8Array(await subtle.exportKey("raw", ephemeral.publicKey));
  const dh = new Uint8Array(await subtle.deriveBits({ name: "X25519", public: publicKey }, ephemeral.privateKey, 256));
  if (dh.every((byte) => byte === 0)) throw new Error("The key broker's public key is not a usable one."); // RFC 9180, 7.1.4

  const eaePrk = await labeledExtract(KEM_SUITE, EMPTY, "eae_prk", dh);
  const shared = await labeledExpand(KEM_SUITE, eaePrk, "shared_secret", concat(enc, theirs), 32);
  const pskIdHash = await labeledExtract(HPKE_SUITE, EMPTY, "psk_id_hash", EMPTY);
  const infoHash = await labeledExtract(HPKE_SUITE, EMPTY, "info_hash", info);
  const context = concat(Uint8Array.of(0), pskIdHash, infoHash);
  const secret = await labeledExtract(HPKE_SUITE, shared, "secret", EMPTY);
  const key = await labeledExpand(HPKE_SUITE, secret, "key", context, 32);
  const nonce = await labeledExpand(HPKE_SUITE, secret, "base_nonce", context, 12);

  const aes = await subtle.importKey("raw", key, "AES-GCM", false, ["encrypt"]);
  const sealed = new Uint8Array(await subtle.encrypt({ name: "AES-GCM", iv: nonce }, aes, dataKey));
  return concat(enc, sealed);
}

// --- The sealed file -------------------------------------------------------------------------------------------

const FIRST = SEGMENT - HEADER - TAG;
const OTHER = SEGMENT - TAG;

const segments = (size) => (size <= FIRST ? 1 : 1 + Math.ceil((size - FIRST) / OTHER));

/** Size in bytes of the sealed file of a plaintext of `size` bytes. */
export const ciphertextSize = (size) => HEADER + size + TAG * segments(size);

/**
 * Seals one File or Blob, a segment at a time. A segment is encrypted once and never again: the same nonce must not
 * meet a file that changed in between. What the network lost is sent again from the kept ciphertext.
 */
export class Sealer {
  #aes; #wrapped; #header; #file; #plainHash = new Sha256(); #sealedHash = new Sha256(); #next = 0; #read = 0;

  static async create(file, { dataset, version, recipient, mediaType }) {
    const sealer = new Sealer();
    sealer.#file = file;
    Object.assign(sealer, { dataset, version, recipient, mediaType, size: ciphertextSize(file.size), count: segments(file.size) });
    const dataKey = crypto.getRandomValues(new Uint8Array(32));
    const salt = crypto.getRandomValues(new Uint8Array(32));
    const prefix = crypto.getRandomValues(new Uint8Array(7));
    sealer.#header = concat(Uint8Array.of(HEADER), salt, prefix);
    sealer.#wrapped = await wrapKey(dataKey, recipient, dataKeyInfo(dataset, version));
    const base = await subtle.importKey("raw", dataKey, "HKDF", false, ["deriveKey"]);
    sealer.#aes = await subtle.deriveKey(
      { name: "HKDF", hash: "SHA-256", salt, info: associatedData(dataset, version) },
      base, { name: "AES-GCM", length: 256 }, false, ["encrypt"],
    );
    dataKey.fill(0);
    return sealer;
  }

  get done() { return this.#next === this.count; }

  /** The next part of the sealed file (the first carries the header). Rejects when the file changed or went away. */
  async next() {
    const index = this.#next;
    if (this.done) throw new Error("The whole file is sealed already.");
    const last = index === this.count - 1;
    const end = last ? this.#file.size : FIRST + index * OTHER;
    let plain;
    try {
      plain = new Uint8Array(await this.#file.slice(this.#read, end).arrayBuffer());
    } catch {
      throw new SealError("The file cannot be read any more. It may have been moved or changed. Choose it again.");
    }
    if (plain.length !== end - this.#read) throw new SealError("The file changed while it was being sealed. Choose it again.");
    this.#next += 1; // from here on this nonce counts as used
    const iv = new Uint8Array(12);
    iv.set(this.#header.subarray(33), 0);
    new DataView(iv.buffer).setUint32(7, index);
    iv[11] = last ? 1 : 0;
    const sealed = new Uint8Array(await subtle.encrypt({ name: "AES-GCM", iv }, this.#aes, plain));
    const part = index === 0 ? concat(this.#header, sealed) : sealed;
    this.#plainHash.update(plain);
    this.#sealedHash.update(part);
    this.#read = end;
    return part;
  }

  /** The seal header, once `done`: the JSON that is kept beside the sealed file. */
  sealHeader() {
    if (!this.done) throw new Error("The file is not sealed yet.");
    this.finished ??= {
      v: 1, format: FORMAT, dataset: this.dataset, version: this.version,
      wrapped_key: { suite: this.recipient.suite, recipient: this.recipient.id, data: toBase64(this.#wrapped) },
      ciphertext: { sha256: this.#sealedHash.hex(), size: this.size },
      plaintext: { sha256: this.#plainHash.hex(), size: this.#file.size, media_type: this.mediaType },
    };
    return this.finished;
  }
}

/** Something that the person can do something about; the message is for them. */
export class SealError extends Error {}

/** "text/csv" or "application/vnd.apache.parquet" by the bytes of the file. Rejects with a SealError for neither. */
export async function mediaTypeOf(file) {
  if (file.size === 0) throw new SealError("The file is empty. Choose another one.");
  const magic = async (from, to) => new TextDecoder("latin1").decode(await file.slice(from, to).arrayBuffer());
  const parquet = file.size >= 12 && (await magic(0, 4)) === "PAR1" && (await magic(file.size - 4, file.size)) === "PAR1";
  const name = (file.name ?? "").toLowerCase();
  if (parquet) return "application/vnd.apache.parquet";
  if (name.endsWith(".parquet")) throw new SealError("The file is called .parquet but is not a Parquet file. Choose another one.");
  if (name.endsWith(".csv")) return "text/csv";
  throw new SealError("Choose a CSV or Parquet file.");
}
