"""The balancer's file: what it may say, how it is read, and what each engine makes of it."""
