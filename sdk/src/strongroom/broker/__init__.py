"""A key broker: holds the key to which a custodian's data keys are wrapped, and gives them to attested machines only.

`stores` is where its private key lies, `release` the decision and the wrapping, `service` the same as a small web
service for a custodian who runs it beside their own keys. The portal's own broker uses the first two.
"""
