"""Counting calls of the allocator's functions, and the accounting that checks itself."""
