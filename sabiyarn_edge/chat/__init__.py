"""Messages in, answers out: templates, tools, histories and sessions. Needs the extra `chat`."""
