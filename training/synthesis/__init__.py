"""Synthetic scans made from anatomical label volumes."""
