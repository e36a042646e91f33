"""HTTP/1.1 messages, strictly (RFC 9112): bytes in, values out, nothing is read or sent here.

A message is accepted by one grammar (`grammar.py`) or refused; what is forwarded is built anew from the parts that
matched, never a copy of what came. So a message that two parsers could read in two ways cannot get through.
"""
