#!/usr/bin/env bash
# The server of the tutorials, as one types it, for run.py to compare with: `bash -s VERSION` on a host. Corrected where it would not work:
#   - the dialect is postgresql+psycopg2: a bare postgresql:// asks for psycopg 3, and MLflow does not start
#   - nginx takes bodies over 1 MB: artifacts would be refused
# and with a port, a directory and a user of its own, to stand beside the deployment. Telemetry is off: a test host calls nobody.
set -euo pipefail
version=$1
export DEBIAN_FRONTEND=noninteractive
step() { echo "step $1 $(date +%s.%N)"; }

step packages
apt-get install --yes python3-venv postgresql nginx apache2-utils sudo

step venv
mkdir -p /opt/tutorial
if [ ! -e /opt/tutorial/venv ]; then # else run.py has copied the one that it timed on another host
  python3 -m venv /opt/tutorial/venv
  /opt/tutorial/venv/bin/pip install "mlflow==$version" psycopg2-binary
fi

step database
cd /
sudo -u postgres psql -c "CREATE USER tutorial WITH PASSWORD 'tutorial'"
sudo -u postgres psql -c 'CREATE DATABASE tutorial OWNER tutorial'

step service
useradd --system --create-home --home-dir /var/lib/tutorial tutorial
cat >/etc/systemd/system/tutorial.service <<'UNIT'
[Unit]
Description=MLflow
After=network.target postgresql.service

[Service]
User=tutorial
WorkingDirectory=/var/lib/tutorial
Environment=MLFLOW_DISABLE_TELEMETRY=true
ExecStart=/opt/tutorial/venv/bin/mlflow server --backend-store-uri postgresql+psycopg2://tutorial:tutorial@localhost/tutorial --artifacts-destination /var/lib/tutorial/artifacts -h 127.0.0.1
Restart=always

[Install]
WantedBy=multi-user.target
UNIT
systemctl daemon-reload
systemctl enable --now tutorial

step site
htpasswd -bc /etc/nginx/tutorial.htpasswd tutorial tutorial
cat >/etc/nginx/sites-available/tutorial <<'SITE'
server {
    listen 8001;
    client_max_body_size 0;
    auth_basic "MLflow";
    auth_basic_user_file /etc/nginx/tutorial.htpasswd;
    location / {
        proxy_pass http://127.0.0.1:5000;
    }
}
SITE
ln -s ../sites-available/tutorial /etc/nginx/sites-enabled/
nginx -t
systemctl reload nginx

step healthy
for _ in $(seq 600); do
  [ "$(python3 -c 'import urllib.request as u; print(u.urlopen("http://127.0.0.1:5000/health").status)' 2>/dev/null)" != 200 ] || break
  sleep 0.2
done
python3 -c 'import urllib.request as u; u.urlopen("http://127.0.0.1:5000/health")'
step 'done'
