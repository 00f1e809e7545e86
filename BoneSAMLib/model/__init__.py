"""The BoneSAM-T network in PyTorch: the only part of BoneSAMLib that imports torch."""
