"""The debuggee behind one small protocol, and its adapters."""
