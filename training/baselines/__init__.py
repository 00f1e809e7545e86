"""Networks that others would use for the same task, trained and measured like BoneSAM."""
