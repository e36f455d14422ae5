#!/usr/bin/env bash
# Beside the tutorial's site: the same with kept upstream connections, the same with bcrypt, and nginx alone with the artifacts of the deployment.
set -euo pipefail
export DEBIAN_FRONTEND=noninteractive
apt-get install --yes --no-install-recommends wrk curl
htpasswd -bcBC 12 /etc/nginx/bcrypt.htpasswd tutorial tutorial
cat >/etc/nginx/conf.d/bench.conf <<'SITES'
upstream tutorial {
    server 127.0.0.1:5000;
    keepalive 32;
}
server {
    listen 8002;
    auth_basic "MLflow";
    auth_basic_user_file /etc/nginx/tutorial.htpasswd;
    location / {
        proxy_pass http://tutorial;
        proxy_http_version 1.1;
        proxy_set_header Connection "";
        proxy_set_header Host 127.0.0.1:5000;
    }
}
server {
    listen 8003;
    auth_basic "MLflow";
    auth_basic_user_file /etc/nginx/bcrypt.htpasswd;
    location / {
        proxy_pass http://127.0.0.1:5000;
    }
}
server {
    listen 8004;
    location / {
        root /var/lib/mlflow/artifacts;
    }
}
SITES
nginx -t
systemctl reload nginx
runuser -u postgres -- psql -c 'CREATE TABLE IF NOT EXISTS bench (at timestamptz)' postgres
