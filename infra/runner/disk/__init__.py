"""The disk image for Azure confidential VMs: a read-only root under dm-verity, named by a unified kernel image.

    python -m infra.runner.disk build --out FOLDER

Whoever knows PCR 4 and 11 of this image knows every byte that runs: the kernel image holds kernel, initrd and command
line; the command line holds the hash of the root file system. docs/how-to/runner-image.md, docs/adr/0014-a-disk-image-with-dm-verity.md.
Standard library only. cpio, gpt, pe, pcrs and vhd are pure; the others run tools or read files.
"""
