"""Files for each engine, by what is special in them."""

from __future__ import annotations

POOL = """
[[pool]]
name = "app"
{settings}
[[pool.target]]
addr = "10.2.1.2:8080"
weight = 60
[[pool.target]]
addr = "10.2.2.2:8080"
weight = 20
"""


def nft(listener: str = "", pool: str = "", bind: str = '"0.0.0.0:80"', more: str = "") -> str:
    return (
        'engine = "nftables"\n[[listener]]\nname = "web"\nprotocol = "tcp"\npool = "app"\n'
        + f"bind = [{bind}]\n{listener}\n"
        + POOL.format(settings=pool)
        + more
    )


SIX = '[[pool.target]]\naddr = "[fd00:2:1::2]:8080"\n'

SIX_ONLY = """
[[listener]]
name = "LISTENER"
bind = ["[fd00::1]:PORT"]
protocol = "PROTOCOL"
pool = "POOL"
timestamps = "strip"
upstream = { source = ["fd00:2:1::1", "[fd00:2:2::1]:20000-29999"] }
client = { idle = "20s" }
max_conn = 5
[[pool]]
name = "POOL"
SETTINGS
[[pool.target]]
addr = "[fd00:2:1::2]:8080"
[[pool.target]]
addr = "[fd00:2:2::2]:8080"
"""


def six(port: str, protocol: str, pool: str, settings: str) -> str:
    text = SIX_ONLY if protocol == "tcp" else SIX_ONLY.replace('timestamps = "strip"', "")
    words = {"LISTENER": f"on{port}", "PORT": port, "PROTOCOL": protocol, "POOL": pool, "SETTINGS": settings}
    for word, value in words.items():
        text = text.replace(word, value)
    return text


NFTABLES = {
    "plain": nft(),
    "limits": nft("max_conn = 20\nmax_cps = 10"),
    "strip": nft('timestamps = "strip"', bind='"10.0.0.1:80"'),
    "both-families": nft(bind='"[::]:80"', more=SIX),
    "dnat": nft('client = { idle = "20s" }', 'nat = "dnat"'),
    "sources": nft('upstream = { source = ["10.2.1.1", "10.2.2.1:20000-29999", "10.0.0.1"] }'),
    "hashed": nft(pool='scheduler = "ip_hash"'),
    "sessions": nft(
        pool='session = { type = "source_ip", ttl = "60s" }', bind='"10.0.0.1:80", "[fd00::1]:80"', more=SIX
    ),
    "udp": nft().replace('"tcp"', '"udp"'),
    "six": 'engine = "nftables"\n'
    + six("80", "tcp", "plain", "")
    + six("81", "tcp", "hashed", 'scheduler = "ip_hash"')
    + six("82", "tcp", "kept", 'session = { type = "source_ip" }')
    + six("83", "udp", "datagrams", ""),
    "same-port": nft(bind='"10.0.0.1:80"')
    + nft(bind='"10.0.0.9:80"').split("\n", 1)[1].split("[[pool]]")[0].replace('"web"', '"other"'),
    "two": nft()
    + """
[[listener]]
name = "dns.v-2"
bind = ["10.0.0.1:53", "10.0.0.1:5353"]
protocol = "udp"
pool = "dns"
"""
    + POOL.replace("app", "dns").format(settings=""),
}


def haproxy(listener: str = "", pool: str = "", rules: str = "", protocol: str = "http", top: str = "") -> str:
    if protocol in ("http", "https") and not rules:
        rules = '[[listener.rule]]\npool = "app"\n'
    where = "" if rules else 'pool = "app"\n'
    return (
        f'engine = "haproxy"\nworkers = 1\n{top}\n[[listener]]\nname = "web"\nbind = ["127.0.0.1:8080"]\n'
        f'protocol = "{protocol}"\n{where}{listener}\n{rules}' + POOL.format(settings=pool)
    )


HAPROXY = {
    "plain": haproxy(),
    "tcp": haproxy(protocol="tcp"),
    "limits": haproxy(
        "max_conn = 20\nmax_cps = 10\nlimits = { header_size = 8192, header_count = 50, body_size = 100 }"
    ),
    "client": haproxy(
        'client = { keepalive = "0s", header_timeout = "1500ms", close = "fin-rst", max_requests = 3 }'
    ),
    "upstream-none": haproxy('upstream = { keepalive = false, retries = 0, close = "peer" }'),
    "upstream-reset": haproxy('upstream = { keepalive = false, read_timeout = "5s", send_timeout = "5s" }'),
    "upstream-always": haproxy('upstream = { reuse = "always", idle = "2s", pool_max = 5 }'),
    "sources": haproxy('upstream = { source = ["127.0.0.2", "127.0.0.3:20000-29999"] }'),
    "proxy-in": haproxy('real_ip = { accept_proxy = true, trusted = ["127.0.0.0/8", "::1"], mode = "proxy_v1" }'),
    "proxy-out": haproxy('real_ip = { mode = "proxy_v2" }', protocol="tcp"),
    "trusted": haproxy('real_ip = { trusted = ["10.0.0.0/8"] }\nupgrade = "refuse"\nconnect = "tunnel"'),
    "least": haproxy(pool='scheduler = "least_conn"'),
    "hashed": haproxy(pool='scheduler = "ip_hash"'),
    "cookie": haproxy(pool='session = { type = "cookie_insert", ttl = "60s", cookie = "SID" }'),
    "logged": haproxy('real_ip = { trusted = ["10.0.0.0/8"] }', top='access_log = "-"'),
    "logged-tcp": haproxy("max_conn = 5", protocol="tcp", top='access_log = "-"'),
    "table": haproxy(pool='session = { type = "source_ip", ttl = "60s" }'),
    "six": haproxy().replace('"127.0.0.1:8080"', '"[::]:8080", "unix:/tmp/x y/web.sock"'),
    "rules": haproxy(
        rules="".join(
            f'[[listener.rule]]\npool = "app"\ndomain = "{domain}"\npath = "{path}"\n'
            for domain, path in [
                ("_default", "= /x"),
                ("_default", "/a'b/"),
                ("_default", "~ ^/(it's|\\\\\\\\)"),
                ("*.x.com", "^~ /"),
                ("www.x.*", "~* \\\\\\\\.PHP$"),
                ("~^www\\\\\\\\d+\\\\\\\\.x", "/"),
            ]
        )
    ),
}
