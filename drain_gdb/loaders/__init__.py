"""Where commands and adapters meet: inside each debugger, and in the shell."""
