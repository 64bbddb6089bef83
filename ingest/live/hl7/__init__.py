"""HL7 v2 waveforms over MLLP."""
