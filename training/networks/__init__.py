"""Networks other than BoneSAM-T that the same loop trains."""
