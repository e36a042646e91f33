"""The rules of TCP on Linux, pure: plain numbers in, plain numbers out; nothing of ours is imported here."""
