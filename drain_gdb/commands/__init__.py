"""The commands, the same under every debugger and in the shell."""
