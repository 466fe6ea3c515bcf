"""Files of the disk image for Azure confidential VMs."""
