"""ISO/IEEE 11073 SDC: real-time sample arrays of BICEPS devices."""
