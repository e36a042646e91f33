"""A link between two hosts in user space: it delays, loses, filters, records, and applies an old kernel's rules."""
