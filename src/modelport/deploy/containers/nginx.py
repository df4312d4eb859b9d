"""nginx as the front of a server: TLS, sizes and times, and nothing else is let in.

nginx rather than Caddy, because the certificate comes from files that somebody already has: it
needs neither a public name nor a volume for its state, and ``nginx -t`` proves the file.

Sources: https://nginx.org/en/docs/http/ngx_http_proxy_module.html, ``ngx_http_ssl_module.html``,
https://ssl-config.mozilla.org/ ("intermediate").
"""

from __future__ import annotations

from typing import Final

HTTPS_PORT: Final = 8443
HEALTH_PORT: Final = 8081
HEALTH_URL: Final = f"http://127.0.0.1:{HEALTH_PORT}/front-health"

_TEXT: Final = """\
# TLS in front of the model server. Test it with: nginx -t
worker_processes auto;
pid /tmp/nginx.pid;
error_log /dev/stderr warn;

events {{
    worker_connections 1024;
}}

http {{
    # The root file system is read-only.
    client_body_temp_path /tmp/body;
    proxy_temp_path /tmp/proxy;
    fastcgi_temp_path /tmp/fastcgi;
    uwsgi_temp_path /tmp/uwsgi;
    scgi_temp_path /tmp/scgi;

    # Neither queries nor headers: they may hold keys.
    log_format plain '$remote_addr [$time_iso8601] "$request_method $uri" $status '
                     '$body_bytes_sent $request_time $upstream_response_time';
    access_log /dev/stdout plain;
    server_tokens off;

    ssl_certificate {certificate};
    ssl_certificate_key {key};
    ssl_protocols TLSv1.2 TLSv1.3;
    ssl_ciphers ECDHE-ECDSA-AES128-GCM-SHA256:ECDHE-RSA-AES128-GCM-SHA256:\
ECDHE-ECDSA-AES256-GCM-SHA384:ECDHE-RSA-AES256-GCM-SHA384:\
ECDHE-ECDSA-CHACHA20-POLY1305:ECDHE-RSA-CHACHA20-POLY1305;
    ssl_prefer_server_ciphers off;
    ssl_session_cache shared:tls:10m;
    ssl_session_timeout 1d;
    ssl_session_tickets off;

    # As much, and as long, as the server itself takes.
    client_max_body_size {body};
    client_body_timeout {body_timeout}s;
    client_header_timeout 15s;
    keepalive_timeout 75s;

    upstream model {{
        server {server};
        keepalive 64;
    }}

    server {{
        listen {https} ssl;
        server_name _;
        add_header Strict-Transport-Security "max-age=31536000" always;

        location / {{
            proxy_pass http://model;
            proxy_http_version 1.1;
            proxy_set_header Connection "";
            proxy_set_header Host $http_host;
            proxy_set_header X-Forwarded-For $remote_addr;
            proxy_set_header X-Forwarded-Proto https;
            proxy_connect_timeout 5s;
            proxy_read_timeout {timeout}s;
            proxy_send_timeout {timeout}s;
            # A request that the model may have seen is not sent again.
            proxy_next_upstream off;
        }}

        # Prometheus asks the server itself, inside.
        location = /metrics {{
            return 404;
        }}
    }}

    # For the health check, inside the container only.
    server {{
        listen 127.0.0.1:{health};
        access_log off;
        location = /front-health {{
            return 200;
        }}
        location / {{
            return 404;
        }}
    }}
}}
"""


def nginx_conf(
    server: str, certificate: str, key: str, *, max_body: int, timeout: float, body_timeout: float
) -> str:
    """The configuration.

    Parameters
    ----------
    server : str
        ``host:port`` of the model server.
    certificate, key : str
        PEM files in nginx' container.
    max_body : int
        Bytes of a request.
    timeout, body_timeout : float
        Seconds that the server takes at most to answer, and that a request may take to arrive.
    """
    return _TEXT.format(
        server=server,
        certificate=certificate,
        key=key,
        body=max_body,
        timeout=int(timeout) + 5,  # the server's own 504 says more
        body_timeout=int(body_timeout),
        https=HTTPS_PORT,
        health=HEALTH_PORT,
    )
