"""Workers on other machines: same bits, certificates, deaths, and nobody else gets in."""

from __future__ import annotations

import contextlib
import datetime
import ipaddress
import os
import pathlib
import shutil
import signal
import socket
import subprocess
import sys
import threading

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_federated as tff
from federated_doubles import assert_same_bits, few_clients, make_datasets, make_model, weights_of

from tff_autoprune import federated, runtime
from tff_autoprune.errors import UserError
from tff_autoprune.runtime import remote, worker

_SCRIPT = pathlib.Path(__file__).parents[2] / "scripts" / "worker.py"
_SIZES = (20, 15, 10, 5, 12, 9)


@pytest.fixture(autouse=True)
def local_again():
    yield
    runtime.start()


def _train(aggregator="mean", rounds=2):
    settings = few_clients(aggregator=federated.AggregatorSettings(name=aggregator))
    engine = federated.Engine(make_model(normalization="batch"), settings)
    state = engine.initialize()
    for _ in range(rounds):
        result = engine.next(state, make_datasets(_SIZES))
        state = result.state
    return weights_of(state), result.metrics, engine.evaluate(state, make_datasets((7, 3)))


@contextlib.contextmanager
def _serving(address="127.0.0.1:0", **options):
    server, port = worker.serve(address, clients_at_once=1, **options)
    try:
        yield f"{address.rpartition(':')[0]}:{port}"
    finally:
        server.stop(grace=None)


@contextlib.contextmanager
def _worker_process(*arguments, prefix=()):
    command = [*prefix, sys.executable, str(_SCRIPT), *arguments]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            line = process.stdout.readline()
            assert line.startswith("worker listening on "), line
            yield process, line.split()[-1]
        finally:
            process.terminate()


@pytest.mark.parametrize("aggregator", ["mean", "robust"])
def test_two_workers_give_the_bits_of_a_local_run(aggregator):
    local = _train(aggregator)
    with _serving() as first, _serving() as second:
        runtime.start(workers=[first, second])
        spread = _train(aggregator)
        runtime.stop()
    assert_same_bits(local[0], spread[0])
    assert local[1:] == spread[1:]


def _kill(process):
    process.kill()
    process.wait()


def _kill_in_a_round(process):
    """It takes clients that it never returns, as if killed while it computed them."""
    process.send_signal(signal.SIGSTOP)
    threading.Timer(2, process.kill).start()


@pytest.mark.parametrize("kill", [_kill, _kill_in_a_round])
def test_a_worker_that_is_killed_is_reported_and_replaced(caplog, kill):
    local = _train(rounds=3)
    with _worker_process("--bind=127.0.0.1:0") as (process, first), _serving() as second:
        runtime.start(workers=[first, second])
        engine = federated.Engine(make_model(normalization="batch"), few_clients())
        state = engine.next(engine.initialize(), make_datasets(_SIZES)).state

        kill(process)
        for _ in range(2):
            state = engine.next(state, make_datasets(_SIZES)).state
        runtime.stop()
    assert_same_bits(local[0], weights_of(state))
    assert f"Worker {first} is gone" in caplog.text


def test_no_worker_left_is_one_clear_error():
    with _worker_process("--bind=127.0.0.1:0") as (process, address):
        runtime.start(workers=[address])
        engine = federated.Engine(make_model(), few_clients())
        state = engine.initialize()
        process.kill()
        process.wait()
        with pytest.raises(UserError, match="none is left"):
            engine.next(state, make_datasets(_SIZES))


def test_a_worker_that_is_not_there_is_one_clear_error(monkeypatch):
    monkeypatch.setattr(remote, "_CONNECT_SECONDS", 0.5)
    with pytest.raises(UserError, match=r"workers: 127.0.0.1:1 does not answer"):
        runtime.start(workers=["127.0.0.1:1"])


def test_a_failure_in_a_clients_graph_names_the_worker():
    @tff.tensorflow.computation(tff.SequenceType(np.int32))
    def fails(dataset):
        with tf.control_dependencies([tf.debugging.Assert(False, ["no such luck"])]):
            return dataset.reduce(0, lambda total, value: total + value)

    @tff.federated_computation(tff.FederatedType(tff.SequenceType(np.int32), tff.CLIENTS))
    def everywhere(data):
        return tff.federated_map(fails, data)

    with _serving() as address:
        runtime.start(workers=[address])
        with pytest.raises(RuntimeError, match=rf"(?s){address}.*no such luck"):
            everywhere([tf.data.Dataset.range(3).map(lambda x: tf.cast(x, tf.int32))])
        runtime.stop()


def test_an_error_of_our_own_costs_no_worker(monkeypatch):
    with _serving() as address:
        runtime.start(num_clients_at_once=1, workers=[address])
        engine = federated.Engine(make_model(), few_clients())
        state = engine.initialize()
        with monkeypatch.context() as patch:
            patch.setattr(remote.values, "extract", None)  # TypeError: no error of gRPC's.
            with pytest.raises(TypeError):
                engine.next(state, make_datasets((5,)))
        assert engine.next(state, make_datasets((5,))).clients == 1
        runtime.stop()


def test_stock_tff_can_use_a_worker():
    import grpc

    def make_executor(cardinalities):
        channel = grpc.insecure_channel(address)
        executor = tff.framework.RemoteExecutor(tff.framework.RemoteExecutorGrpcStub(channel))
        executor.set_cardinalities(cardinalities)
        return executor

    @tff.federated_computation(tff.FederatedType(np.float32, tff.CLIENTS))
    def mean(values):
        return tff.federated_mean(values), tff.federated_max(values)

    with _serving() as address:
        context = tff.framework.SyncExecutionContext(
            executor_fn=tff.framework.ResourceManagingExecutorFactory(make_executor)
        )
        tff.framework.set_default_context(context)
        assert mean([1.0, 2.0, 6.0]) == (3.0, 6.0)


def _certificates(folder):
    """An authority, and one certificate for 127.0.0.1 signed by it."""
    x509 = pytest.importorskip("cryptography.x509")
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    def name(text):
        return x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, text)])

    def signed(subject, issuer, public_key, signing_key, *extensions):
        now = datetime.datetime.now(datetime.timezone.utc)
        builder = (
            x509.CertificateBuilder()
            .subject_name(name(subject))
            .issuer_name(name(issuer))
            .public_key(public_key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(days=1))
            .not_valid_after(now + datetime.timedelta(days=1))
        )
        for extension in extensions:
            builder = builder.add_extension(extension, critical=False)
        return builder.sign(signing_key, hashes.SHA256())

    def write(file_name, content):
        path = folder / file_name
        path.write_bytes(content)
        return str(path)

    authority_key = ec.generate_private_key(ec.SECP256R1())
    key = ec.generate_private_key(ec.SECP256R1())
    authority = signed(
        "authority",
        "authority",
        authority_key.public_key(),
        authority_key,
        x509.BasicConstraints(ca=True, path_length=None),
    )
    local = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
    own = signed("machine", "authority", key.public_key(), authority_key, local)
    pem = serialization.Encoding.PEM
    return remote.Tls(
        write("ca.pem", authority.public_bytes(pem)),
        write("own.pem", own.public_bytes(pem)),
        write(
            "key.pem",
            key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()),
        ),
    )


def test_a_worker_with_certificates_serves_only_those_who_have_one(tmp_path, monkeypatch):
    for name in ("ours", "theirs"):
        (tmp_path / name).mkdir()
    ours, theirs = _certificates(tmp_path / "ours"), _certificates(tmp_path / "theirs")
    local = _train(rounds=1)
    with _serving(tls=ours) as address:
        runtime.start(workers=[address], tls=ours)
        assert_same_bits(local[0], _train(rounds=1)[0])
        runtime.stop()
        monkeypatch.setattr(remote, "_CONNECT_SECONDS", 1)
        stranger = remote.Tls(ours.certificate_authority, theirs.certificate, theirs.key)
        for tls in (None, theirs, stranger):
            with pytest.raises(UserError, match="does not answer"):
                runtime.start(workers=[address], tls=tls)


def test_a_missing_certificate_is_one_clear_error(tmp_path):
    missing = str(tmp_path / "none.pem")
    with pytest.raises(UserError, match=r"none\.pem cannot be read"):
        worker.serve("127.0.0.1:0", clients_at_once=1, tls=remote.Tls(missing, missing, missing))


@pytest.mark.parametrize("address", ["0.0.0.0:0", "[::]:0", "192.0.2.1:0", "example.org:0"])
def test_an_address_that_others_can_reach_must_be_meant(address):
    with pytest.raises(UserError, match="--allow_network"):
        worker.serve(address, clients_at_once=1)


def test_an_address_in_use_is_one_clear_error():
    with _serving() as address, pytest.raises(UserError, match="in use"):
        worker.serve(address, clients_at_once=1)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--bind=0.0.0.0:0"], "--allow_network"),
        (["--bind=localhost"], "expected HOST:PORT"),
        (["--tls_key=key.pem"], "must be given together"),
        (["--clients_at_once=-1"], "expected 0 or more"),
    ],
)
def test_the_command_refuses_what_it_cannot_do(arguments, message):
    environment = {k: v for k, v in os.environ.items() if not k.startswith("TF_")}
    done = subprocess.run(
        [sys.executable, str(_SCRIPT), *arguments],
        capture_output=True,
        text=True,
        check=False,
        env=environment,
    )
    assert done.returncode == 2
    assert message in done.stderr and len(done.stderr.strip().splitlines()) == 1


def _listening_inodes():
    inodes = set()
    for table in ("tcp", "tcp6"):
        for line in pathlib.Path("/proc/net", table).read_text().splitlines()[1:]:
            fields = line.split()
            if fields[3] == "0A":
                inodes.add(fields[9])
    return inodes


def _own_sockets():
    sockets = set()
    for link in pathlib.Path("/proc/self/fd").iterdir():
        with contextlib.suppress(OSError):
            target = os.readlink(link)
            if target.startswith("socket:["):
                sockets.add(target[8:-1])
    return sockets


@pytest.mark.skipif(not pathlib.Path("/proc/net/tcp").exists(), reason="needs Linux")
def test_a_local_run_listens_nowhere_and_starts_no_process():
    with socket.socket() as control:
        control.bind(("127.0.0.1", 0))
        control.listen()
        assert _own_sockets() & _listening_inodes()
    runtime.start()
    _train(rounds=1)
    assert not _own_sockets() & _listening_inodes()
    children = pathlib.Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()
    names = [pathlib.Path("/proc", child, "comm").read_text().strip() for child in children]
    assert "worker_binary" not in names


_HOST, _GUEST = "10.213.77.1", "10.213.77.2"


@pytest.fixture
def namespace():
    """A network namespace joined to this one by a cable."""
    name = f"tffap{os.getpid()}"
    link = f"v{os.getpid()}"[:13]

    def ip(*arguments):
        return subprocess.run(["ip", *arguments], capture_output=True, check=False).returncode == 0

    if not shutil.which("ip") or os.geteuid() or not ip("netns", "add", name):
        pytest.skip("needs root and iproute2")
    try:
        made = (
            ip("link", "add", f"{link}a", "type", "veth", "peer", "name", f"{link}b", "netns", name)
            and ip("addr", "add", f"{_HOST}/30", "dev", f"{link}a")
            and ip("link", "set", f"{link}a", "up")
            and ip("-n", name, "addr", "add", f"{_GUEST}/30", "dev", f"{link}b")
            and ip("-n", name, "link", "set", f"{link}b", "up")
            and ip("-n", name, "link", "set", "lo", "up")
        )
        if not made:
            pytest.skip("this machine does not let us join network namespaces")
        yield name
    finally:
        ip("netns", "delete", name)


def _connects(namespace, port):
    code = f"import socket; socket.create_connection(({_HOST!r}, {port}), 3)"
    command = ["ip", "netns", "exec", namespace, sys.executable, "-c", code]
    return subprocess.run(command, capture_output=True, check=False).returncode == 0


def test_only_a_worker_that_is_meant_to_can_be_reached_from_another_network(namespace):
    with _serving() as address:
        assert not _connects(namespace, address.rpartition(":")[2])
    with _serving(f"{_HOST}:0", allow_network=True) as address:
        assert _connects(namespace, address.rpartition(":")[2])


def test_a_worker_in_another_network_gives_the_bits_of_a_local_run(namespace):
    local = _train(rounds=1)
    prefix = ("ip", "netns", "exec", namespace)
    arguments = (f"--bind={_GUEST}:0", "--allow_network")
    with _worker_process(*arguments, prefix=prefix) as (_, first), _serving() as second:
        runtime.start(workers=[first, second])
        spread = _train(rounds=1)
        runtime.stop()
    assert_same_bits(local[0], spread[0])
