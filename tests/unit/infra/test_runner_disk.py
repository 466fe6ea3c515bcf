"""The disk image's pure parts: VHD, GPT, initrd, PE, PCRs, command line, and what the build refuses."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import struct
import subprocess
import uuid
import zlib
from pathlib import Path

import pytest

from infra.runner.disk import __main__ as command
from infra.runner.disk import commit, cpio, debian, gpt, image, initrd, pcrs, pe, root, trial, vhd, wheels
from strongroom.evidence import Policy

DISK = Path(image.__file__).parent
MEASURE = Path("/usr/lib/systemd/systemd-measure")
VERITY = image.Verity("ab" * 32, 12345)


def stub(*, signed: bool = False) -> bytes:
    """A program of one section, with room for more in its headers."""
    head = bytearray(1024)
    head[:2], head[0x3C:0x40] = b"MZ", struct.pack("<I", 128)
    head[128:132] = b"PE\0\0"
    struct.pack_into("<HHIIIHH", head, 132, 0x8664, 1, 0, 0, 0, 240, 0x206)
    struct.pack_into("<H", head, 152, 0x20B)
    struct.pack_into("<II", head, 152 + 32, 512, 512)
    struct.pack_into("<III", head, 152 + 56, 0x5000, 1024, 7)  # with a checksum that has to go
    struct.pack_into("<I", head, 152 + 108, 16)
    struct.pack_into("<8sIIIIIIHHI", head, 392, b".text", 700, 0x4000, 1024, 1024, 0, 0, 0, 0, 0x60000020)
    body = bytes(head) + b"\xc3" * 700 + bytes(324)
    if signed:
        struct.pack_into("<II", head, 152 + 144, len(body), 16)
        body = bytes(head) + body[1024:] + b"signature-------"
    return body


def unified(line: str = "ro quiet") -> bytes:
    return image.kernel_image(stub(), kernel=stub(), initrd=b"initrd" * 100, line=line, release="ID=x\n")


# VHD


@pytest.mark.parametrize(
    ("size", "expected"),
    [  # by hand from the specification's arithmetic
        (4 << 20, (120, 4, 17)), (64 << 20, (963, 8, 17)), (504 << 20, (1024, 16, 63)), (1 << 30, (2080, 16, 63)), (64 << 30, (32896, 16, 255)),
        (3 << 40, (65535, 16, 255)),
    ],
)  # fmt: skip
def test_the_geometry_of_a_disk(size, expected):
    assert vhd.geometry(size) == expected


def test_the_footer_says_what_azure_reads():
    identity, made = uuid.UUID(int=7), 946684800 + 99
    end = vhd.footer(512 << 20, identity=identity, made=made)
    assert len(end) == 512 and end[:8] == b"conectix" and end[84:85] == b"\0"
    features, version, offset, time = struct.unpack(">IIQI", end[8:28])
    assert (features, version, offset, time) == (2, 0x10000, 2**64 - 1, 99)
    original, current = struct.unpack(">QQ", end[40:56])
    assert original == current == 512 << 20
    assert struct.unpack(">I", end[60:64]) == (2,) and end[68:84] == identity.bytes
    (stored,) = struct.unpack(">I", end[64:68])
    assert stored == ~sum(end[:64] + end[68:]) & 0xFFFFFFFF


@pytest.mark.parametrize("size", [0, 512, (1 << 20) + 512])
def test_a_size_that_azure_refuses(size):
    with pytest.raises(ValueError, match="whole number of MiB"):
        vhd.footer(size, identity=uuid.UUID(int=1), made=0)


@pytest.mark.skipif(shutil.which("qemu-img") is None, reason="no qemu-img here: apt-get install qemu-utils")
def test_qemu_takes_it_for_a_fixed_vhd(tmp_path):
    raw = tmp_path / "raw"
    raw.write_bytes(bytes(range(256)) * (4 << 12))
    image.as_vhd(raw, tmp_path / "vhd", VERITY, time=1_700_000_000)
    said = subprocess.run(
        ["qemu-img", "info", "--output=json", "-f", "vpc", tmp_path / "vhd"], capture_output=True, check=True
    )
    # Read by its footer's size, not by its geometry, since the maker is not the emulator of old.
    assert json.loads(said.stdout)["format"] == "vpc"
    assert (tmp_path / "vhd").read_bytes()[:-512] == raw.read_bytes()


# GPT


def test_partitions_stand_on_whole_mib_and_both_tables_are_whole():
    ids = [uuid.UUID(int=n) for n in range(1, 4)]
    placed, size = gpt.lay_out(
        [("a", gpt.ESP, ids[0], 3 << 20), ("b", gpt.ROOT, ids[1], 4096), ("c", gpt.ROOT_VERITY, ids[2], 513)]
    )
    assert [p.start >> 20 for p in placed] == [1, 4, 5] and [p.size for p in placed] == [3 << 20, 4096, 1024]
    assert size == 7 << 20
    first, last = gpt.tables(placed, identity=uuid.UUID(int=9), size=size)
    assert first[510:512] == b"\x55\xaa" and first[450] == 0xEE and len(last) == 33 * 512
    for header, table in ((first[512:1024], first[1024:]), (last[-512:], last[:-512])):
        zeroed = header[:16] + bytes(4) + header[20:92]
        assert header[:8] == b"EFI PART" and struct.unpack("<I", header[16:20]) == (zlib.crc32(zeroed),)
        assert struct.unpack("<I", header[88:92]) == (zlib.crc32(table[: 128 * 128]),)
    begin, end = struct.unpack_from("<QQ", first, 1024 + 128 + 32)
    assert (begin, end) == (4 << 11, (4 << 11) + 7)


# Initrd


def test_the_same_files_make_the_same_archive():
    entries = {"bin/a": cpio.file(b"1", executable=True), "lib/b": cpio.link("a")}
    made = cpio.archive(entries, time=5)
    assert made == cpio.archive(dict(reversed(entries.items())), time=5) != cpio.archive(entries, time=6)


@pytest.mark.skipif(shutil.which("cpio") is None, reason="no cpio here: apt-get install cpio")
def test_cpio_reads_it(tmp_path):
    packed = cpio.archive({"x/y/z": cpio.file(b"content", executable=True), "x/l": cpio.link("y/z")}, time=5)
    done = subprocess.run("gzip -d | cpio -idm --quiet", shell=True, input=packed, cwd=tmp_path, check=True)
    assert done.returncode == 0 and (tmp_path / "x/l").read_bytes() == b"content"
    assert (tmp_path / "x/y/z").stat().st_mode & 0o111 and (tmp_path / "x/y/z").stat().st_mtime == 5


def test_modules_come_after_what_they_need():
    known = initrd.dependencies("k/a-b.ko.xz: k/c.ko.xz k/d.ko.xz\nk/c.ko.xz: k/d.ko.xz\nk/d.ko.xz:\n")
    assert initrd.in_order(["a-b", "c"], known) == ["k/d.ko.xz", "k/c.ko.xz", "k/a-b.ko.xz"]
    with pytest.raises(KeyError):
        initrd.in_order(["missing"], known)


def test_the_first_program_has_no_way_into_a_shell():
    script = (DISK / "init").read_text()
    body = script.partition("\n")[2]
    assert not re.search(r"^\s*(exec\s+)?(/bin/)?(sh|ash|bash|setsid|login|getty)\b", body, re.M)
    assert body.count('off "') >= 6 and "poweroff -f" in body and "panic_on_corruption" in body
    assert subprocess.run(["sh", "-n", str(DISK / "init")]).returncode == 0


# PE and PCRs


def test_added_sections_are_found_again():
    made = pe.Pe.parse(unified())
    assert made.section(".cmdline") == b"ro quiet" and made.section(".initrd") == b"initrd" * 100
    assert made.section(".linux") == stub() and made.section(".splash") is None
    starts = [s.address for s in made.sections]
    assert starts == sorted(starts) and all(s.address % 4096 == 0 for s in made.sections)
    assert made.number(56) >= max(s.address + s.size for s in made.sections) and made.number(64) == 0


def test_what_is_no_program_or_cannot_take_more():
    with pytest.raises(ValueError, match="no PE file"):
        pe.Pe.parse(b"MZ" + bytes(200))
    with pytest.raises(ValueError, match="signed already"):
        pe.add_sections(stub(signed=True), [(".x", b"")])
    with pytest.raises(ValueError, match="no room"):
        pe.add_sections(stub(), [(f".{n}", b"") for n in range(20)])


def test_the_hash_of_a_program_leaves_out_the_checksum_and_the_signature():
    plain = stub()
    whole = plain[: 152 + 64] + plain[152 + 68 : 152 + 144] + plain[152 + 152 :]
    assert pe.authenticode(plain) == hashlib.sha256(whole).digest() == pe.authenticode(stub(signed=True))
    assert pe.authenticode(plain[:1500] + b"\x90" + plain[1501:]) != pe.authenticode(plain)


def test_symbols_after_the_last_section_are_no_gap_among_the_sections():
    parts = [(".cmdline", b"ro"), (".linux", b"k" * 700)]
    with_symbols = bytearray(stub() + b"symbols")
    struct.pack_into("<II", with_symbols, 128 + 12, len(stub()), 1)
    made = pe.add_sections(bytes(with_symbols), parts)
    assert made == pe.add_sections(stub(), parts)
    found = pe.Pe.parse(made)
    end = found.number(60)
    for section in found.sections:
        assert section.offset % found.number(36) == 0 and section.stored % found.number(36) == 0
        assert section.offset == end, "a gap before it, or it overlaps the one before"
        end = section.offset + section.stored
    assert end == len(made) and struct.unpack_from("<II", made, 128 + 12) == (0, 0)
    assert (found.section(".text"), found.section(".linux")) == (b"\xc3" * 700, b"k" * 700)
    with pytest.raises(ValueError, match="cut short"):
        pe.add_sections(stub()[:-1], parts)


def signed(image: bytes) -> bytes:
    """The program with a table of one certificate behind it: WIN_CERTIFICATE, PKCS#7. Nobody's signature."""
    made = bytearray(image + bytes(-len(image) % 8))
    table = struct.pack("<IHH", 8 + 24, 0x0200, 0x0002) + b"signature" * 2 + bytes(6)
    optional = pe.Pe.parse(image).optional
    struct.pack_into("<I", made, optional + 64, 12345)
    struct.pack_into("<II", made, optional + 144, len(made), len(table))
    return bytes(made) + table


def test_with_secure_boot_the_kernel_is_not_measured_by_itself():
    for built in (unified(), signed(unified())):
        off, on = (pcrs.boot_programs(built, secure_boot=state) for state in (False, True))
        assert off == pcrs.extend(on, pe.authenticode(stub())) != on
    with pytest.raises(ValueError, match="no kernel"):
        pcrs.boot_programs(stub(), secure_boot=True)


def test_pcr_4_is_that_of_the_machine_that_starts_the_image():
    plain, with_key = unified(), signed(unified())
    assert not pe.Pe.parse(plain).signed and pe.Pe.parse(with_key).signed
    assert pe.authenticode(with_key) == pe.authenticode(plain)
    assert pcrs.golden(plain)["4"] == pcrs.boot_programs(plain, secure_boot=False).hex()
    assert pcrs.golden(with_key)["4"] == pcrs.boot_programs(plain, secure_boot=True).hex()
    others = [{n: v for n, v in pcrs.golden(built).items() if n != "4"} for built in (plain, with_key)]
    assert others[0] == others[1]


@pytest.mark.skipif(
    not all(map(shutil.which, ("sbsign", "openssl"))), reason="no sbsign here: apt-get install sbsigntool"
)
def test_sbsign_signs_the_hash_that_is_computed(tmp_path):
    key, certificate, plain, made = (tmp_path / name for name in ("key", "certificate", "plain", "signed"))
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=test", "-keyout", key, "-out", certificate],
        check=True, capture_output=True,
    )  # fmt: skip
    plain.write_bytes(unified())
    done = subprocess.run(
        ["sbsign", "--key", key, "--cert", certificate, "--output", made, plain],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0 and "gap" not in done.stderr, done.stderr
    image = made.read_bytes()
    at, size = pe.Pe.parse(image).certificates
    assert (
        pe.authenticode(image) == pe.authenticode(unified())
        and pe.authenticode(image) in image[at : at + size]
    )
    assert pcrs.golden(image)["4"] == pcrs.boot_programs(unified(), secure_boot=True).hex()


def test_each_part_of_the_kernel_image_is_in_pcr_11():
    base = {"kernel": stub(), "initrd": b"i", "line": "ro", "release": "r"}
    values = {pcrs.kernel_image(image.kernel_image(stub(), **base))}
    for name, other in (("kernel", stub() + bytes(512)), ("initrd", b"j"), ("line", "rw"), ("release", "s")):
        values.add(pcrs.kernel_image(image.kernel_image(stub(), **(base | {name: other}))))
    assert len(values) == 5


@pytest.mark.skipif(not MEASURE.exists(), reason="no systemd-measure here: it comes with systemd 252")
def test_systemd_measure_says_the_same(tmp_path):
    parts = {"linux": stub(), "osrel": b"ID=x\n", "cmdline": b"ro quiet", "initrd": b"initrd" * 100}
    for name, content in parts.items():
        (tmp_path / name).write_bytes(content)
    said = subprocess.run(
        [MEASURE, "calculate", "--bank=sha256", "--json=short", "--phase=:", *(f"--{n}={tmp_path / n}" for n in parts)],
        capture_output=True, text=True,
    )  # fmt: skip
    if said.returncode:
        pytest.skip(f"systemd-measure cannot calculate here: {said.stderr.strip()[:100]}")
    assert pcrs.kernel_image(unified()).hex() in said.stdout


def test_the_entry_is_one_that_a_policy_takes():
    entry = {"type": "azure-cvm", "image": "sha256:" + "ab" * 32, "pcrs": pcrs.golden(unified())}
    Policy.parse(
        {"v": 1, "types": ["azure-cvm"], "images": [entry["image"]], "max_age_seconds": 60, "code": [entry]}
    )
    assert set(entry["pcrs"]) == {"4", "9", "11", "12", "13"}
    assert entry["pcrs"]["12"] == entry["pcrs"]["13"] == "00" * 32
    assert pcrs.golden(unified("ro"))["9"] != entry["pcrs"]["9"]


# Command line


def test_the_command_line_names_every_byte_and_leaves_no_way_in():
    words = image.command_line(VERITY).split()
    assert f"strongroom.verity={'ab' * 32}:{image.SALT}:12345" in words
    # Credentials from the host's tables could write files and units: systemd.exec(7), tmpfiles.d(5).
    assert {"systemd.import_credentials=no", "lockdown=confidentiality", "module.sig_enforce=1"} <= set(words)
    assert not [
        w
        for w in words
        if w.startswith(("console=", "init=", "rd.", "systemd.unit=", "systemd.debug", "root="))
    ]
    assert "console=ttyS0" in image.command_line(VERITY, console=True)


def test_partitions_are_named_by_the_root_hash():
    first, second = image.partition_ids(image.Verity("11" * 16 + "22" * 16, 1))
    assert (first.hex, second.hex) == ("11" * 16, "22" * 16)


# What is in it


def test_nobody_gets_into_the_machine():
    assert {
        "ssh.service", "ssh.socket", "serial-getty@ttyS0.service", "serial-getty@.service", "getty@.service", "getty.target",
        "debug-shell.service", "walinuxagent.service", "swap.target", "systemd-coredump.socket", "ctrl-alt-del.target",
    } <= set(root.MASKED)  # fmt: skip
    assert {"systemd-pcrmachine.service", "systemd-pcrphase.service", "systemd-pcrfs@.service"} <= set(
        root.MASKED
    )
    assert not set(root.MASKED) & set(root.ENABLED)
    assert not [p for p in debian.ROOT if re.search(r"ssh|cloud-init|waagent|hyperv-daemons|sudo|login", p)]
    for name in ("emergency.service", "rescue.service"):
        assert "poweroff" in (DISK / "overlay/etc/systemd/system" / name).read_text()
    assert "Storage=volatile" in (DISK / "overlay/etc/systemd/journald.conf.d/strongroom.conf").read_text()
    assert "DefaultLimitCORE=0" in (DISK / "overlay/etc/systemd/system.conf.d/strongroom.conf").read_text()
    for unit in root.UNITS:
        assert (DISK.parent / "vm" / unit).exists()


def test_no_host_is_named_in_the_files():
    for file in DISK.rglob("*"):
        if file.is_file() and "__pycache__" not in file.parts:
            assert "://" not in file.read_text(), file


def test_where_packages_come_from():
    text = "http://a/debian/|bookworm|main|Debian\nhttp://a/sec/|bookworm-security|main|Debian\nhttp://x/|bookworm|main|Other\n"
    found = debian.read_targets("http://x/|bookworm|main|Other\n" + text)
    assert found == {"bookworm": "http://a/debian/", "bookworm-security": "http://a/sec/"}
    lines = debian.Mirrors("http://a/debian", "http://a/sec").sources().splitlines()
    assert [line.split()[3] for line in lines] == [
        "bookworm", "bookworm-updates", "bookworm-backports", "bookworm-security"
    ]  # fmt: skip


def test_a_machine_without_the_release(monkeypatch):
    monkeypatch.setattr(debian, "_targets", lambda: "")
    with pytest.raises(debian.NoMirror, match="--mirror"):
        debian.mirrors()


def test_what_is_installed_first_has_hashes():
    made = wheels.beside(
        {"torch-2.13.0+cpu-x.whl": "aa", "setuptools-84-y.whl": "bb", "pandas-3-z.whl": "cc", "autograd_gamma-0.tar.gz": "dd"},
        "pandas==3 \\\nsetuptools==84 \\\n",
    )  # fmt: skip
    assert made == "setuptools==84 --hash=sha256:bb\ntorch==2.13.0+cpu --hash=sha256:aa\n"


# Refusals


def repository(folder: Path) -> Path:
    for name in (*commit.RUNS[1:], "requirements"):
        (folder / name).mkdir(parents=True)
        (folder / name / "file.txt").write_text("x")
    (folder / "workers/__init__.py").write_text("")
    (folder / "requirements/programs.txt").write_text("")
    for arguments in (
        ["init", "-q"],
        ["add", "-A"],
        ["-c", "user.name=x", "-c", "user.email=x@example.org", "commit", "-qm", "x"],
    ):
        subprocess.run(["git", *arguments], cwd=folder, check=True)
    return folder


@pytest.mark.parametrize(
    "name",
    ["workers/runner/file.txt", "workers/runner/new.py", "requirements/programs.txt", "infra/runner/vm/x"],
)
def test_what_is_not_committed_is_not_built(tmp_path, name):
    folder = repository(tmp_path)
    found = commit.Commit.of(folder)
    found.unpack(tmp_path / "out")
    assert (tmp_path / "out/workers/runner/file.txt").read_text() == "x" and found.time > 0
    (folder / name).write_text("changed")
    with pytest.raises(commit.NotCommitted, match="commit first"):
        commit.Commit.of(folder)


def test_a_key_without_its_certificate_is_refused(tmp_path, capsys):
    assert command.main(["build", "--key", str(tmp_path / "k"), "--out", str(tmp_path)]) == 1
    assert "or neither" in capsys.readouterr().err


def test_pcrs_of_a_file_that_is_none(tmp_path, capsys):
    (tmp_path / "f").write_bytes(b"none")
    assert command.main(["pcrs", str(tmp_path / "f")]) == 1
    assert "no PE file" in capsys.readouterr().err
    (tmp_path / "f").write_bytes(unified())
    assert command.main(["pcrs", str(tmp_path / "f")]) == 0
    assert json.loads(capsys.readouterr().out) == pcrs.golden(unified())


# The trial's reading of a TPM's log


def test_what_a_tpm_was_told_is_read_from_its_log():
    digest = bytes(range(32))
    body = bytes.fromhex("8002") + bytes(4) + bytes.fromhex("00000182 0000000b 00000009") + bytes(9)
    body += bytes.fromhex("00000002 0004") + bytes(20) + bytes.fromhex("000b") + digest
    lines = [" ".join(f"{b:02X}" for b in part) for part in (body[:16], body[16:])]
    begin = " SWTPM_IO_Read: length 12\n 80 01 00 00 00 0C 00 00 01 44 00 00 \n"
    log = f"{begin} SWTPM_IO_Write: length 1\n 00 \n SWTPM_IO_Read: length {len(body)}\n {lines[0]} \n {lines[1]} \n"
    assert trial.replay(log)[11] == hashlib.sha256(bytes(32) + digest).digest()
    assert trial.replay(log + begin)[11] == bytes(32)


# The portal's authority


def test_an_image_names_the_portals_authority(tmp_path):
    made = commit.Commit(DISK.parents[2], "HEAD", 0)
    (tmp_path / "ca.pem").write_text("no certificate")
    with pytest.raises(OSError):
        root.fill(tmp_path / "a", made, authority=tmp_path / "ca.pem")
    pem = (DISK.parents[2] / "sdk/src/strongroom/evidence/anchors/amd-ark-milan.pem").read_bytes()
    (tmp_path / "ca.pem").write_bytes(pem)
    root.fill(tmp_path / "b", made, authority=tmp_path / "ca.pem")
    root.fill(tmp_path / "c", made)
    named, none = (tmp_path / n / "opt/strongroom/authorities" for n in "bc")
    assert (named / "portal.pem").read_bytes() == pem and list(none.iterdir()) == []
