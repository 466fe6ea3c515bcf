"""Output packages: everything that is needed to verify a result offline, in one file.

    outputs/<path>...     what the program produced           manifest.json         what was to be run, on what
    statement.dsse.json   the run's signed statement          verdict.json          the portal's signed verdict
    context/c1.json       who asked for which keys            evidence/e1.json      evidence bound to c1
    context/c2.json       what was produced                   evidence/e2.json      evidence bound to c2
    log/entry.json        the log entry, opened               log/proof.txt         its place in the log
    log/checkpoint        the signed tree head                portal.json           the portal's public keys
    package.json          every other file by SHA-256 and size

    context/c1-1.json...  the same, asked of custodians'   evidence/e1-1.json...  own key brokers, in c2's order

c1 and e1 are missing only if the portal's own key broker was asked for no key.
"""

from strongroom.package.build import build_package, package_index
from strongroom.package.portal import PortalKeys
from strongroom.package.report import PackageReport
from strongroom.package.verify import verify_package

__all__ = ["PackageReport", "PortalKeys", "build_package", "package_index", "verify_package"]
