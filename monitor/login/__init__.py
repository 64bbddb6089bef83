"""Who may come in: users and their passwords, sessions, and the gate before every address."""
