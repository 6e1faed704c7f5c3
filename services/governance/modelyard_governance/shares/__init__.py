"""What leaves the installation: shares, and bundles as they are described and signed."""
