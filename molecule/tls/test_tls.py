# SPDX-License-Identifier: GPL-3.0-or-later
"""Each mode of TLS on one server, in this order; the server is bare."""

from __future__ import annotations

import datetime
import os
import re
import subprocess
import time
from contextlib import contextmanager
from pathlib import Path

import deployment
import pytest
import testinfra
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from deployment import recap, said

HERE = Path(__file__).resolve().parent
INVENTORY = os.environ["MLFLOW_TEST_INVENTORY"]
CREDENTIALS = Path(INVENTORY) / "credentials"
TLS = "/etc/nginx/mlflow/tls"
CA = f"{TLS}/selfsigned/ca.pem"
ROOT = "/etc/ssl/test-root.pem"  # on the server, what its clients trust where the certificate is not the role's own
FILES = {"mlflow_tls": "files", "mlflow_nginx_verify_ca": ROOT}
PLAIN = {"mlflow_tls": "none", "mlflow_accept_plain_http": True}
ACME = {
    "mlflow_acme_email": "team@mlflow.test",
    "mlflow_domain_aliases": ["alias.test"],
    "mlflow_nginx_acme_directory": "https://acme.test:14000/dir",
    "mlflow_nginx_acme_ca": "/etc/ssl/acme-ca.pem",
    "mlflow_nginx_verify_ca": ROOT,
}
RENEWAL = "mlflow-certificate.service"


def deploy(variables: dict | None = None, *options: str) -> subprocess.CompletedProcess:
    return deployment.deploy(variables, *options, playbook=HERE / "proxy.yml")


def deployed(variables: dict | None = None, *options: str) -> str:
    """What a run that succeeded said; the next one has nothing to do."""
    run = deploy(variables, *options)
    assert run.returncode == 0, run.stdout[-3000:]
    again = deploy(variables)
    assert recap(again)["changed"] == 0 and again.returncode == 0, deployment.changed(again) or again.stdout[-3000:]
    return said(run)


def refused(host, sentence: str, variables: dict) -> None:
    """Stopped by this sentence before anything changed."""
    before = serial(host), listeners(host)
    run = deploy(variables)
    assert run.returncode != 0
    assert sentence in said(run)
    assert recap(run)["changed"] == 0
    assert (serial(host), listeners(host)) == before


def curl(host, *arguments: str) -> str:
    return host.run("curl --silent --show-error --max-time 60 " + " ".join(f"'{argument}'" for argument in arguments)).stdout


def serial(host, name: str = "mlflow.test") -> str:
    """Of the certificate that clients get."""
    return host.check_output(f"openssl s_client -connect {name}:443 -servername {name} </dev/null 2>/dev/null | openssl x509 -noout -serial")


def another_serial(host, before: str) -> str:
    """nginx reloads in its own time."""
    deadline = time.monotonic() + 30
    while (now := serial(host)) == before and time.monotonic() < deadline:
        time.sleep(0.5)
    return now


def listeners(host) -> set[int]:
    lines = host.check_output("ss -Hltnp").splitlines()
    return {int(line.split()[3].rsplit(":", 1)[1]) for line in lines if '"nginx"' in line}


def password() -> str:
    return (CREDENTIALS / "mlflow.test" / "mlflow.txt").read_text().strip()


def headers(host, authority: str, path: str = "/version") -> str:
    return curl(host, "--include", "--cacert", authority, "--user", f"mlflow:{password()}", f"https://mlflow.test{path}").lower()


def log_run(host, uri: str, authority: str = "") -> subprocess.CompletedProcess:
    """By MLflow's own client, with an artifact, which is then there."""
    code = (
        "import mlflow\nmlflow.set_experiment('tls')\n"
        "with mlflow.start_run() as run: mlflow.log_param('mode', 'tls'); mlflow.log_text('text', 'file.txt')\n"
        "print(mlflow.artifacts.load_text(run.info.artifact_uri + '/file.txt'), run.info.artifact_uri.removeprefix('mlflow-artifacts:'))"
    )
    trust = f"MLFLOW_TRACKING_SERVER_CERT_PATH={authority}" if authority else ""
    return host.run(
        "cd /tmp && runuser -u nobody -- env HOME=/tmp MLFLOW_HTTP_REQUEST_MAX_RETRIES=0 MLFLOW_DISABLE_TELEMETRY=true"
        " MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT=true MLFLOW_TRACKING_USERNAME=mlflow "
        f"MLFLOW_TRACKING_URI={uri} MLFLOW_TRACKING_PASSWORD={password()} {trust} /opt/mlflow/current/bin/python -c %s",
        code,
    )


def speaks(host, version: str) -> bool:
    """A client that would take the weakest."""
    command = f"openssl s_client -connect mlflow.test:443 -servername mlflow.test -{version} -cipher ALL:@SECLEVEL=0 </dev/null"
    return host.run(command).rc == 0


def hosts_file(host, address: str, name: str) -> None:
    """Let the name lead to the address, as its DNS record does. podman mounts the file, so it stays the same one."""
    host.run_expect([0], f"sed 's/^[0-9.]*\\(.*{name}\\)/{address}\\1/' /etc/hosts >/tmp/hosts && cat /tmp/hosts >/etc/hosts")
    time.sleep(6)  # Go's resolver, pebble's, believes what it read for 5 seconds


@pytest.fixture(scope="module", autouse=True)
def curl_is_there(host):
    host.run_expect([0], "command -v curl || DEBIAN_FRONTEND=noninteractive apt-get install --yes --no-install-recommends curl")


@pytest.fixture(scope="module")
def acme():
    return testinfra.get_host(f"podman://{os.environ['MLFLOW_TEST_ACME']}")


def trust_the_authority(host, acme) -> None:
    """As every system does a public one."""
    host.run_expect([0], f"printf %s '{acme.file('/etc/pebble/fullchain.pem').content_string}' >/etc/ssl/acme-ca.pem")
    host.run_expect([0], f"curl --silent --cacert /etc/ssl/acme-ca.pem https://acme.test:15000/roots/0 >{ROOT}")


class Authority:
    """Somebody's own, which signs what it is asked to."""

    def __init__(self) -> None:
        self.key = ec.generate_private_key(ec.SECP256R1())
        self.name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "Company CA")])
        others = ["digital_signature", "content_commitment", "key_encipherment", "data_encipherment", "key_agreement", "encipher_only", "decipher_only"]
        usage = x509.KeyUsage(key_cert_sign=True, crl_sign=True, **dict.fromkeys(others, False))
        self.certificate = self.sign(self.key, self.name, x509.BasicConstraints(ca=True, path_length=None), usage)

    def sign(self, key, subject, *extensions, first_day: int = -1, last_day: int = 30):
        now = datetime.datetime.now(datetime.timezone.utc)
        builder = x509.CertificateBuilder(self.name, subject, key.public_key(), x509.random_serial_number())
        builder = builder.not_valid_before(now + datetime.timedelta(first_day)).not_valid_after(now + datetime.timedelta(last_day))
        # What Python 3.13 and later want to see.
        identifiers = x509.SubjectKeyIdentifier.from_public_key(key.public_key()), x509.AuthorityKeyIdentifier.from_issuer_public_key(self.key.public_key())
        for extension in [*extensions, *identifiers]:
            builder = builder.add_extension(extension, critical=isinstance(extension, x509.BasicConstraints))
        return builder.sign(self.key, hashes.SHA256())

    def issue(self, top: Path, *names: str, **days: int) -> dict[str, str]:
        """The variables that name a certificate and its key."""
        key = ec.generate_private_key(ec.SECP256R1())
        alternatives = x509.SubjectAlternativeName([x509.DNSName(name) for name in names])
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, names[0])])
        certificate = self.sign(key, subject, alternatives, **days)
        pem = serialization.Encoding.PEM
        (top / "certificate.pem").write_bytes(certificate.public_bytes(pem))
        (top / "key.pem").write_bytes(key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()))
        return {**FILES, "mlflow_tls_certificate": str(top / "certificate.pem"), "mlflow_tls_key": str(top / "key.pem")}


@pytest.fixture(scope="module")
def company(host):
    authority = Authority()
    pem = authority.certificate.public_bytes(serialization.Encoding.PEM).decode()
    host.run_expect([0], f"printf %s '{pem}' >{ROOT}")
    return authority


def given_serial(variables: dict[str, str]) -> str:
    number = x509.load_pem_x509_certificate(Path(variables["mlflow_tls_certificate"]).read_bytes()).serial_number
    return f"serial={number:0{(number.bit_length() + 7) // 8 * 2}X}"


# ACME on a server on which nothing else was deployed.


def test_acme_needs_nothing_that_the_site_does_not_install(host, acme):
    assert host.run("command -v certbot || command -v nginx").rc != 0
    trust_the_authority(host, acme)
    output = deployment.deployed({**ACME, "mlflow_domain_aliases": []})
    assert "MLflow is ready: https://mlflow.test" in output
    assert " 200" in curl(host, "--head", "--cacert", ROOT, "https://mlflow.test/health")


# The default: a certificate from an authority of the server's own.


def test_selfsigned_is_the_default(host):
    assert "MLflow is ready: https://mlflow.test" in deployed()
    assert " 200" in curl(host, "--head", "--cacert", CA, "https://mlflow.test/health")


def test_selfsigned_changes_nothing_when_run_again(host):
    before = serial(host)
    run = deploy()
    assert recap(run)["changed"] == 0 and run.returncode == 0, run.stdout[-3000:]
    assert "MLflow is ready: https://mlflow.test'" in said(run)
    assert "Reached by its name from the server; from this machine" in said(run)
    for variable in "MLFLOW_TRACKING_SERVER_CERT_PATH", "REQUESTS_CA_BUNDLE":
        assert f"export {variable}={CREDENTIALS}/mlflow.test.ca.txt" in said(run)
    assert serial(host) == before


def test_selfsigned_is_trusted_by_every_name_with_the_certificate_on_the_controller(host):
    assert (CREDENTIALS / "mlflow.test.ca.txt").read_text() == host.file(CA).content_string
    address = host.check_output("hostname --all-ip-addresses").split()[0]
    code = (
        "import socket, ssl, sys\nc = ssl.create_default_context(cafile=sys.argv[1]); c.verify_flags |= ssl.VERIFY_X509_STRICT\n"
        "for n in sys.argv[2:]: print(c.wrap_socket(socket.create_connection((n, 443)), server_hostname=n).version())"
    )
    assert host.check_output(f"python3 -c %s {CA} mlflow.test {address}", code).split() == ["TLSv1.3", "TLSv1.3"]


def test_selfsigned_serves_a_client(host):
    run = log_run(host, "https://mlflow.test", CA)
    assert run.stdout.startswith("text "), run.stderr
    assert "CERTIFICATE_VERIFY_FAILED" in log_run(host, "https://mlflow.test").stderr


def test_selfsigned_says_nothing_of_hsts(host):
    assert " 200" in headers(host, CA)
    assert "strict-transport-security" not in headers(host, CA)


@pytest.mark.parametrize(("version", "wanted"), [("tls1", False), ("tls1_1", False), ("tls1_2", True), ("tls1_3", True)])
def test_old_protocols_are_refused(host, version, wanted):
    assert speaks(host, version) == wanted


SAME = "ssl_protocols TLSv1.2 TLSv1.3; ssl_ecdh_curve X25519:prime256v1:secp384r1%s; ssl_session_timeout 1d; ssl_session_cache shared:shop:1m;"


def seen(host) -> dict[str, object]:
    """What clients get of what another site may decide."""
    connect = "openssl s_client -connect mlflow.test:443 -servername mlflow.test"
    return {
        **{f"ssl_protocols {version}": speaks(host, version) for version in ("tls1", "tls1_1", "tls1_2", "tls1_3")},
        **{f"ssl_ecdh_curve {group}": host.run(f"{connect} -groups {group} </dev/null").rc for group in ("X25519", "P-256", "P-384", "P-521")},
        "ssl_session_timeout": host.run(f"sleep 1 | {connect} -tls1_3 | grep --max-count=1 lifetime").stdout,
        # by a session's number, without a ticket; not seen without TLS 1.2
        "ssl_session_cache": "Reused" in host.run(f"{connect} -tls1_2 -no_ticket -reconnect </dev/null").stdout,
    }


@pytest.mark.drill
@pytest.mark.parametrize(
    ("name", "listen", "settings"),
    [
        ("aa-shop", "443 ssl", SAME.replace("TLSv1.2", "TLSv1 TLSv1.1 TLSv1.2")),
        ("zzz-shop", "443 ssl default_server", SAME.replace("X25519:", "").replace("shared:shop:1m", "none")),
    ],
    ids=["same", "default"],
)
def test_another_default_server_is_told_where_clients_see_it(host, name, listen, settings):
    before = seen(host)
    site, pair = f"/etc/nginx/sites-enabled/{name}", f"{TLS}/selfsigned"
    newer = "X25519MLKEM768:" in host.file("/etc/nginx/sites-available/mlflow.conf").content_string
    settings = settings.replace("%s", ":X25519MLKEM768" if newer else "")
    server = f"server {{ listen {listen}; server_name shop.test; ssl_certificate {pair}/fullchain.pem; ssl_certificate_key {pair}/privkey.pem; {settings} }}"
    host.run_expect([0], "printf %%s %s >%s && systemctl restart nginx", server, site)
    try:
        run = deploy()
        assert recap(run)["changed"] == 0 and run.returncode == 0, run.stdout[-3000:]
        now = seen(host)
        unseen = "" if now["ssl_protocols tls1_2"] else "ssl_session_cache"
        differs = {what.split()[0] for what, value in now.items() if value != before[what] and what != unseen}
        sentence = re.search(rf"nginx takes these TLS settings of port 443 from its default server, in {site}, not from this site: ([^'\"]*)", said(run))
        assert ("from its default server" in said(run)) == bool(sentence) == bool(differs)
        assert not sentence or {told.split()[0] for told in sentence[1].split(", ")} == differs
    finally:
        host.run_expect([0], f"rm {site} && systemctl restart nginx")


def test_plain_http_leads_there(host):
    assert listeners(host) == {80, 443}
    assert "Location: https://mlflow.test/x?y=1\r" in curl(host, "--include", "http://mlflow.test/x?y=1")
    assert curl(host, "--data", "{}", "http://mlflow.test/x") == "Plain HTTP is not served: use https://mlflow.test\n"
    assert "Welcome to nginx" in curl(host, "--header", "Host: other.test", "http://mlflow.test/"), "the default site goes on"


@pytest.mark.drill
def test_selfsigned_is_renewed_before_it_ends(host):
    """Ten days before, by an authority that stays."""
    authority, before = host.file(CA).content_string, serial(host)
    host.run_expect(
        [0],
        f"""set -e; cd {TLS}/selfsigned; echo authorityKeyIdentifier=keyid >/tmp/extensions
        echo "subjectAltName=$(openssl x509 -in fullchain.pem -noout -ext subjectAltName | sed '1d; s/IP Address/IP/g')" >>/tmp/extensions
        openssl req -new -key privkey.pem -subj /O=MLflow -out /tmp/request
        openssl x509 -req -in /tmp/request -CA ca.pem -CAkey ca.key -days 10 -set_serial 5 -extfile /tmp/extensions -out fullchain.pem""",
    )
    assert recap(deploy())["changed"] > 0
    assert serial(host) not in (before, "serial=05")
    assert host.file(CA).content_string == authority == (CREDENTIALS / "mlflow.test.ca.txt").read_text()
    assert recap(deploy())["changed"] == 0


def test_selfsigned_takes_a_new_name(host):
    """Which its authority may not sign, so that it is made anew, with the key that it has."""
    authority = host.file(CA).content_string
    deployed({"mlflow_domain_aliases": ["alias.test"]})
    assert host.file(CA).content_string != authority
    assert (CREDENTIALS / "mlflow.test.ca.txt").read_text() == host.file(CA).content_string
    assert " 200" in curl(host, "--head", "--cacert", CA, "https://alias.test/health")


# A certificate of one's own.


def wrong_key(company, top):
    return {**company.issue(top, "mlflow.test"), "mlflow_tls_key": company.issue(top / "other", "mlflow.test")["mlflow_tls_key"]}


def passphrase(company, top):
    variables = company.issue(top, "mlflow.test")
    path = Path(variables["mlflow_tls_key"])
    key = serialization.load_pem_private_key(path.read_bytes(), None)
    encrypted = serialization.BestAvailableEncryption(b"secret")
    path.write_bytes(key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, encrypted))
    return variables


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (wrong_key, "mlflow_tls_certificate, mlflow_tls_key: the certificate does not fit its key"),
        pytest.param(passphrase, "has a key with a passphrase, which a server could not open", marks=pytest.mark.drill),
        (lambda company, top: company.issue(top, "mlflow.test", last_day=0), "is refused by clients (certificate has expired): renew it"),
        pytest.param(
            lambda company, top: company.issue(top, "mlflow.test", first_day=1), "is refused by clients (certificate is not yet valid)", marks=pytest.mark.drill
        ),
        pytest.param(lambda company, top: company.issue(top, "other.test"), "is not for the name mlflow.test: get one for all names", marks=pytest.mark.drill),
        pytest.param(
            lambda company, top: {**company.issue(top, "mlflow.test"), "mlflow_domain_aliases": ["alias.test"]},
            "is not for the name alias.test",
            marks=pytest.mark.drill,
        ),
        pytest.param(
            lambda company, top: {**company.issue(top, "mlflow.test"), "mlflow_tls_key": "/nowhere.pem"},
            "cannot be read (No such file or directory)",
            marks=pytest.mark.drill,
        ),
        pytest.param(
            lambda company, top: {**company.issue(top, "mlflow.test"), "mlflow_tls_key": str(Path(__file__))}, "is not usable PEM", marks=pytest.mark.drill
        ),
        pytest.param(lambda company, top: FILES, "mlflow_tls is files, but the certificate or its key is missing", marks=pytest.mark.drill),
    ],
    ids=["key", "passphrase", "expired", "early", "name", "alias", "missing", "garbage", "unset"],
)
def test_files_that_clients_would_refuse_are_refused(host, company, tmp_path, make, sentence):
    (tmp_path / "other").mkdir()
    refused(host, sentence, make(company, tmp_path))


def test_files_are_served_and_renewed(host, company, tmp_path):
    """The key in a vault, and never shown."""
    variables = company.issue(tmp_path, "mlflow.test")
    key = Path(variables["mlflow_tls_key"])
    secret = key.read_text().splitlines()[1]
    (tmp_path / "vault").write_text("vault password\n")
    subprocess.run(["ansible-vault", "encrypt", "--vault-password-file", str(tmp_path / "vault"), str(key)], check=True, capture_output=True)
    run = deploy(variables, "--vault-password-file", str(tmp_path / "vault"), "-vvv", "--diff")
    assert run.returncode == 0, run.stdout[-3000:]
    assert secret not in run.stdout + run.stderr
    assert serial(host) == given_serial(variables)
    found = host.file(f"{TLS}/files/privkey.pem")
    assert (found.user, found.mode, secret in found.content_string) == ("root", 0o600, True)

    variables = company.issue(tmp_path, "mlflow.test")
    deployed(variables)
    assert serial(host) == given_serial(variables)


def test_hsts_is_on_everything(host):
    run = log_run(host, "https://mlflow.test", ROOT)
    assert run.stdout.startswith("text "), run.stderr
    for path in ["/version", "/nothing", "/api/2.0/mlflow-artifacts/artifacts" + run.stdout.split()[1] + "/file.txt"]:
        assert "\r\nstrict-transport-security: max-age=63072000\r\n" in headers(host, ROOT, path), path
    answer = curl(host, "--include", "--cacert", ROOT, "https://mlflow.test/")
    assert " 401" in answer and "strict-transport-security" in answer.lower()


@pytest.mark.drill
def test_files_may_be_on_the_server(host, company, tmp_path):
    variables = company.issue(tmp_path, "mlflow.test")
    on_server = {"mlflow_tls_on_server": True, "mlflow_tls_certificate": "/etc/ssl/mlflow.pem", "mlflow_tls_key": "/etc/ssl/private/mlflow.key"}

    def put() -> None:
        for name in ["mlflow_tls_certificate", "mlflow_tls_key"]:  # as a copy that keeps times does
            host.run_expect([0], f"mkdir -p /etc/ssl/private && printf %s '{Path(variables[name]).read_text()}' >{on_server[name]}")
            host.run_expect([0], f"touch -d 2020-01-01 {on_server[name]}")

    put()
    deployed({**variables, **on_server})
    assert serial(host) == given_serial(variables)
    variables = company.issue(tmp_path, "mlflow.test")
    put()
    deployed({**variables, **on_server})
    assert serial(host) == given_serial(variables)


# None.


def test_none_wants_to_be_meant(host):
    refused(host, "mlflow_tls is none, and passwords would cross the network in plain text: set mlflow_accept_plain_http", {"mlflow_tls": "none"})


def test_none_serves_plain_http_alone(host):
    assert "MLflow is ready: http://mlflow.test'" in deployed(PLAIN)
    assert listeners(host) == {80}
    run = log_run(host, "http://mlflow.test")
    assert run.stdout.startswith("text "), run.stderr
    assert not host.file(f"{TLS}/files").exists, "a key that nobody uses"


# ACME: an authority elsewhere, which looks whether the names lead to the server.


def test_acme_that_fails_leaves_what_is_there(host, acme):
    trust_the_authority(host, acme)
    hosts_file(acme, "127.0.0.1", "alias.test")
    run = deploy(ACME)
    assert run.returncode != 0
    assert "gave no certificate for mlflow.test, alias.test; the server goes on with the one it has. Make sure that port 80" in said(run)
    assert "Connection refused" in said(run) or "connection refused" in said(run)
    assert " 200" in curl(host, "--head", "--cacert", CA, "https://mlflow.test/health")
    hosts_file(acme, host.check_output("hostname --all-ip-addresses").split()[0], "alias.test")


def test_acme_gets_a_certificate(host):
    """Email and domain given, nothing else chosen."""
    assert "MLflow is ready: https://mlflow.test" in deployed(ACME)
    for name in ["mlflow.test", "alias.test"]:
        assert " 200" in curl(host, "--head", "--cacert", ROOT, f"https://{name}/health")
    assert "strict-transport-security" in headers(host, ROOT)
    assert "Location: https://mlflow.test/\r" in curl(host, "--include", "http://mlflow.test/")
    assert host.service("mlflow-certificate.timer").is_running
    assert host.service("mlflow-certificate.timer").is_enabled


@contextmanager
def due(host):
    """The certificate is to be renewed ten times as early."""
    file = f"{TLS}/acme/renewal/mlflow.conf"
    host.run_expect([0], rf"sed -i -E 's/^(renew_before_expiry = [0-9]+) hours$/\10 hours/' {file}")
    try:
        yield
    finally:
        host.run_expect([0], rf"sed -i -E 's/^(renew_before_expiry = [0-9]+)0 hours$/\1 hours/' {file}")


def test_acme_does_not_renew_what_is_not_due(host):
    before = serial(host)
    host.run_expect([0], f"systemctl start {RENEWAL}")
    time.sleep(2)
    assert serial(host) == before


def test_acme_renews_while_nginx_serves(host):
    before, process = serial(host), host.check_output("cat /run/nginx.pid")
    with due(host):
        host.run_expect([0], f"systemctl start {RENEWAL}")
    assert another_serial(host, before) != before
    assert host.check_output("cat /run/nginx.pid") == process


@pytest.mark.drill
def test_acme_renewal_that_fails_says_so(host, acme):
    before = serial(host)
    hosts_file(acme, "127.0.0.1", "alias.test")
    with due(host):
        assert host.run(f"systemctl start {RENEWAL}").rc != 0
    assert host.run(f"systemctl is-failed {RENEWAL}").stdout.strip() == "failed"
    assert "alias.test" in host.check_output(f"journalctl --no-pager --unit {RENEWAL} --lines 40")
    assert serial(host) == before
    run = deploy(ACME)
    assert run.returncode == 0 and recap(run)["changed"] == 0, run.stdout[-3000:]
    assert "The renewal of its certificate fails, see: journalctl -u mlflow-certificate" in said(run)


@pytest.mark.drill
def test_acme_renewal_that_nginx_refuses_is_tried_again(host, acme):
    hosts_file(acme, host.check_output("hostname --all-ip-addresses").split()[0], "alias.test")
    before = serial(host)
    host.run_expect([0], "echo nonsense >/etc/nginx/conf.d/broken.conf")
    with due(host):
        assert host.run(f"systemctl start {RENEWAL}").rc != 0
    assert serial(host) == before
    host.run_expect([0], f"rm /etc/nginx/conf.d/broken.conf && systemctl start {RENEWAL}")
    assert another_serial(host, before) != before
    assert "The renewal of its certificate fails" not in said(deploy(ACME))


# And back.


def test_selfsigned_is_what_it_was(host):
    authority = host.file(CA).content_string
    deployed({"mlflow_domain_aliases": ["alias.test"]})
    assert host.file(CA).content_string == authority
    assert " 200" in curl(host, "--head", "--cacert", CA, "https://mlflow.test/health")
    assert listeners(host) == {80, 443}
    assert not host.file("/etc/systemd/system/mlflow-certificate.timer").exists
    assert "mlflow-certificate" not in host.check_output("systemctl list-timers --all")


def test_another_site_stays_the_default_of_its_port(host):
    site = f"server {{ listen 443 ssl; server_name shop.test; ssl_certificate {TLS}/current/fullchain.pem;"
    site += f" ssl_certificate_key {TLS}/current/privkey.pem; return 200 shop; }}"
    other = ("--include", "--insecure", "--connect-to", "other.test:443:mlflow.test:443", "https://other.test/")
    assert " 421" in curl(host, *other)
    host.run_expect([0], f"echo '{site}' >/etc/nginx/sites-enabled/shop && nginx -t -q && systemctl reload nginx && sleep 1")
    assert curl(host, *other).endswith("shop")
    assert recap(deploy({"mlflow_domain_aliases": ["alias.test"]}))["changed"] == 0


def test_another_site_at_the_address_of_the_name_is_told(host):
    """nginx gives it all names that come there."""
    address = host.check_output("getent ahostsv4 mlflow.test").split()[0]
    host.run_expect([0], f"sed -i 's/listen 443/listen {address}:443/' /etc/nginx/sites-enabled/shop && nginx -t -q && systemctl restart nginx")
    output = deployed({"mlflow_domain_aliases": ["alias.test"]})
    assert "Reached at 127.0.0.1 only" in output and "from the server: liveness: GET /health does not answer OK" in output
