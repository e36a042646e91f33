"""Where a request goes: domains and paths choose a pool, a scheduler a target of it, a session the same one again."""
