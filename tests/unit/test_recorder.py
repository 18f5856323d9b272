"""The flight recorder in the loops that people write, and the file that it leaves."""

import copy
import gc
import io
import math
import pickle
import warnings

import pytest
import torch
from planted import CALM, Net, bad_targets, batch, scaled, trained
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence
from torch.utils._pytree import tree_leaves

from spectralgru import SpectralConstraint
from spectralgru.diagnosis.autopsy import autopsy
from spectralgru.diagnosis.recorder import ExplosionRecorder
from spectralgru.diagnosis.recording import VERSION, Recording
from spectralgru.diagnosis.ring import SpikeRule
from spectralgru.diagnosis.spectra import exact_spectra, recurrent_cells
from spectralgru.errors import InputError

EXPLODES = scaled(2, 80.0)


@pytest.fixture(autouse=True)
def _calm():
    torch.manual_seed(0)
    torch.set_num_threads(1)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="ExplosionRecorder: .* why: spectralgru autopsy")
        yield


def recorded(folder, model=None, optimizer=None, **settings):
    model = model or Net("GRU")
    optimizer = optimizer or torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.1)
    recorder = ExplosionRecorder(model, folder, rule=SpikeRule(after=5), **settings)
    recorder.attach(optimizer)
    return model, optimizer, recorder


def recorded_size(recording, *without):
    """Bytes of its tensors, without those of some fields."""
    rest = [value for name, value in vars(recording).items() if name not in (*without, "calls")]
    rest += [vars(call) for call in recording.calls]
    return sum(t.numel() * t.element_size() for t in tree_leaves(rest) if isinstance(t, torch.Tensor))


def loss_of(model, x=None, y=None):
    if x is None:
        x, y = batch()
    return (model(x) - y).square().mean()


def step(model, optimizer):
    optimizer.zero_grad()
    loss_of(model).backward()
    optimizer.step()


def explode(model, optimizer, loop=step, calm=7):
    for _ in range(calm):
        loop(model, optimizer)
    with torch.no_grad():
        EXPLODES(model)
    loop(model, optimizer)


def test_two_lines_in_a_plain_loop_leave_what_was_there_before_the_step(tmp_path):
    model = Net("GRU")
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    ExplosionRecorder(model, tmp_path, rule=SpikeRule(after=5)).attach(optimizer)
    gc.collect()  # nobody but the optimiser holds it
    for _ in range(7):
        step(model, optimizer)
    with torch.no_grad():
        EXPLODES(model)
    x, y = batch()
    before = copy.deepcopy(model.state_dict())
    optimizer.zero_grad()
    loss_of(model, x, y).backward()
    gradient = model.rnn.weight_hh_l0.grad.clone()
    optimizer.step()
    (path,) = tmp_path.iterdir()
    recording = Recording.read(path)
    assert "gradient's norm is" in recording.reason
    assert recording.step == 7
    assert torch.equal(recording.args[0], x)
    assert all(torch.equal(recording.parameters[name], value) for name, value in before.items())
    assert recording.rates["out.bias"] == 0.05
    assert len(recording.ring) == 8
    assert recording.ring[-1]["norm"] > 10 * recording.ring[-2]["norm"]
    index = recording.names.index("rnn.weight_hh_l0")
    assert recording.ring[-1]["gradients"][index] == pytest.approx(gradient.norm().item())
    assert recording.ring[-1]["weights"][index] == pytest.approx(before["rnn.weight_hh_l0"].norm().item())
    sigma = torch.linalg.matrix_norm(before["rnn.weight_hh_l0"][32:].double(), 2).item()
    assert recording.spectra["rnn.weight_hh_l0"]["candidate"] == pytest.approx(sigma)
    assert not recording.remarks
    assert autopsy(None, recording).cause.kind == "candidate"


def test_sigma_and_radius_are_followed_from_below(tmp_path):
    model = Net("GRU")
    optimizer = torch.optim.SGD(model.parameters(), lr=0.005)
    _, _, recorder = recorded(tmp_path, model, optimizer)
    for _ in range(101):
        step(model, optimizer)
    seen = recorder._ring.steps[-1].plain()["spectra"]["rnn.weight_hh_l0"]
    blocks = model.rnn.weight_hh_l0.detach().chunk(3)
    for path, block in zip(("reset gate", "update gate", "candidate"), blocks, strict=True):
        assert seen[path] == pytest.approx(torch.linalg.matrix_norm(block, 2).item(), rel=0.05)
    exact = exact_spectra(recurrent_cells(model.rnn, "rnn"))["rnn.weight_hh_l0"]["radius"]
    assert seen["radius"] == pytest.approx(exact, rel=0.05)


def lbfgs_like(model, optimizer):
    def closure():
        optimizer.zero_grad()
        loss = loss_of(model)
        loss.backward()
        return loss

    optimizer.step(closure)


def accumulated(model, optimizer):
    optimizer.zero_grad()
    for _ in range(3):
        (loss_of(model) / 3).backward()
    optimizer.step()


def clipped(model, optimizer):
    optimizer.zero_grad()
    loss_of(model).backward()
    nn.utils.clip_grad_norm_(model.parameters(), 1e-3)
    optimizer.step()


@pytest.mark.parametrize("loop", [lbfgs_like, accumulated, clipped])
@pytest.mark.parametrize("rule", ["SGD", "Adam"])
def test_other_loops_are_recorded_too(tmp_path, loop, rule):
    model = Net("GRU")
    optimizer = getattr(torch.optim, rule)(model.parameters(), lr=0.01)
    _, _, recorder = recorded(tmp_path, model, optimizer)
    explode(model, optimizer, loop)
    assert len(recorder.files) == 1
    recording = Recording.read(recorder.files[0])
    assert autopsy(None, recording).cause.kind == "candidate"
    if loop is lbfgs_like:
        assert recording.ring[0]["loss"] is not None


def test_lbfgs_itself(tmp_path):
    model = Net("GRU")
    optimizer = torch.optim.LBFGS(model.parameters(), lr=0.1, max_iter=3)
    _, _, recorder = recorded(tmp_path, model, optimizer)
    explode(model, optimizer, lbfgs_like, calm=4)
    assert recorder.files
    assert autopsy(None, recorder.files[0]).cause.kind == "candidate"


def test_several_optimizers_have_their_own_medians(tmp_path):
    model = Net("GRU")
    first = torch.optim.SGD(model.rnn.parameters(), lr=0.01)
    second = torch.optim.SGD(model.out.parameters(), lr=0.01)
    recorder = ExplosionRecorder(model, tmp_path, rule=SpikeRule(after=5))
    recorder.attach(first, second)

    def both(model, _):
        loss_of(model).backward()
        for optimizer in (first, second):
            optimizer.step()
            optimizer.zero_grad()

    explode(model, None, both)
    assert {s.optimizer for s in recorder._ring.steps} == {0, 1}
    assert Recording.read(recorder.files[0]).ring[-1]["optimizer"] == 0


def test_a_step_that_the_grad_scaler_skips_is_no_explosion(tmp_path):
    model, optimizer, recorder = recorded(tmp_path)
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**10)

    def scaled_step(model, optimizer):
        optimizer.zero_grad()
        with torch.autocast("cpu", torch.bfloat16):
            loss = loss_of(model)
        scaler.scale(loss).backward()
        if scaled_step.overflow:
            model.out.bias.grad.fill_(math.inf)
        scaler.step(optimizer)
        scaler.update()

    scaled_step.overflow = False
    for _ in range(7):
        scaled_step(model, optimizer)
    taken = recorder.step
    scaled_step.overflow = True
    scaled_step(model, optimizer)
    assert (recorder.step, recorder.files) == (taken, [])
    scaled_step.overflow = False
    explode(model, optimizer, scaled_step, calm=2)
    recording = Recording.read(recorder.files[0])
    assert recording.autocast == ["cpu", "bfloat16"]
    assert autopsy(None, recording).cause.kind == "candidate"


def test_a_compiled_model(tmp_path):
    model = Net("GRU")
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    compiled = torch.compile(model, backend="eager")
    recorder = ExplosionRecorder(compiled, tmp_path, rule=SpikeRule(after=5))
    recorder.attach(optimizer)
    for _ in range(7):
        step(compiled, optimizer)
    with torch.no_grad():
        EXPLODES(model)
    step(compiled, optimizer)
    recording = Recording.read(recorder.files[0])
    assert recording.names[0] == "rnn.weight_ih_l0"
    assert not recording.remarks
    assert autopsy(None, recording).cause.kind == "candidate"


class Cells(nn.Module):
    def __init__(self, cell):
        super().__init__()
        self.rnn, self.out = cell, nn.Linear(16, 1)

    def forward(self, x):
        state, outputs = None, []
        for x_t in x:
            state = self.rnn(x_t, state)
            outputs.append(self.out(state[0] if isinstance(state, tuple) else state))
        return torch.stack(outputs)


@pytest.mark.parametrize("cell", [nn.GRUCell, nn.LSTMCell])
def test_a_cell_in_a_loop_of_the_model(tmp_path, cell):
    model, optimizer, recorder = recorded(tmp_path, Cells(cell(4, 16)))
    for _ in range(7):
        step(model, optimizer)
    with torch.no_grad():
        model.rnn.weight_hh[32:48] *= 40
    step(model, optimizer)
    found = autopsy(None, recorder.files[0])
    assert (found.cause.kind, found.cause.where) == ("candidate", "rnn.weight_hh")


class Packed(nn.Module):
    def __init__(self):
        super().__init__()
        self.rnn, self.out = nn.GRU(4, 16), nn.Linear(16, 1)

    def forward(self, packed):
        return self.out(self.rnn(packed)[0].data)


def test_packed_sequences(tmp_path):
    model, optimizer, recorder = recorded(tmp_path, Packed())
    lengths = torch.tensor([20, 3, 11, 20, 7, 1, 20, 2])

    def packed_step(model, optimizer):
        optimizer.zero_grad()
        x = pack_padded_sequence(batch()[0], lengths, enforce_sorted=False)
        (model(x) - x.data.sum(1, keepdim=True)).square().mean().backward()
        optimizer.step()

    explode(model, optimizer, packed_step)
    recording = Recording.read(recorder.files[0])
    assert autopsy(None, recording).cause.kind == "candidate"
    assert autopsy(model, recording).norm == pytest.approx(recording.ring[-1]["norm"], rel=0.1)


class Whole(nn.Module):
    """Like a LightningModule: what is called is inside of it."""

    def __init__(self):
        super().__init__()
        self.net = Net("LSTM")


def test_a_model_of_which_a_part_is_called(tmp_path):
    whole = Whole()
    optimizer = torch.optim.SGD(whole.parameters(), lr=0.05)
    recorder = ExplosionRecorder(whole, tmp_path, rule=SpikeRule(after=5))
    recorder.attach(optimizer)
    for _ in range(7):
        step(whole.net, optimizer)
    with torch.no_grad():
        EXPLODES(whole.net)
    step(whole.net, optimizer)
    recording = Recording.read(recorder.files[0])
    assert recording.root == "net"
    assert autopsy(None, recording).cause.where == "net.rnn.weight_hh_l0"
    assert autopsy(whole, recording).cause.where.endswith("rnn.weight_hh_l0")


def test_with_a_constraint_its_reports_are_in_the_ring(tmp_path):
    model, optimizer, recorder = recorded(tmp_path)
    SpectralConstraint(model, 0.5).attach(optimizer)
    for _ in range(3):
        step(model, optimizer)
    report = recorder._ring.steps[-1].plain()["projections"]["rnn.weight_hh_l0"]
    assert report["sigma_max"][0] <= 1.5 * (1 + 1e-6)


def test_nan_at_every_step_leaves_one_file(tmp_path):
    model, optimizer, recorder = recorded(tmp_path, steps=5)
    step(model, optimizer)
    with torch.no_grad():
        model.out.weight.fill_(math.nan)
    for _ in range(20):
        step(model, optimizer)
    assert len(recorder.files) == len(list(tmp_path.iterdir())) == 1
    assert autopsy(None, recorder.files[0]).cause.kind == "weights"


def test_files_are_bounded_in_number_and_size(tmp_path):
    for step_before in (3, 7):
        (tmp_path / f"explosion-step{step_before}-rank0.pt").touch()
    model, optimizer, recorder = recorded(tmp_path, max_files=3)
    explode(model, optimizer)
    (path,) = recorder.files
    assert path.name == "explosion-step7-rank0-again.pt"
    model, optimizer, recorder = recorded(tmp_path, max_files=3)
    with pytest.warns(UserWarning, match="holds 3 recordings already"):
        explode(model, optimizer)
    assert len(list(tmp_path.iterdir())) == 3
    recording = Recording.read(path)
    for parts in (["optimizer"], ["optimizer", "args"]):
        left = [f"{part}: left out, the file would be too large" for part in parts]
        recording.write(small := tmp_path / "small.pt", recorded_size(recording, *parts))
        assert Recording.read(small).remarks == left
    model, optimizer, recorder = recorded(tmp_path / "none", max_bytes=1000)
    with pytest.warns(UserWarning, match="nothing was written: a recording of"):
        explode(model, optimizer)
    assert not (tmp_path / "none").exists() or not list((tmp_path / "none").iterdir())


def test_the_training_is_the_same_with_and_without(tmp_path):
    def weights(record):
        torch.manual_seed(3)
        model = Net("GRU", num_layers=2, dropout=0.5)
        optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
        if record:
            recorder = ExplosionRecorder(model, tmp_path, rule=SpikeRule(after=5))
            recorder.attach(optimizer)
        explode(model, optimizer)
        step(model, optimizer)
        assert not record or recorder.files
        return model.state_dict()

    for name, value in weights(True).items():
        assert torch.equal(value, weights(False)[name]), name


def test_dropout_is_repeated(tmp_path):
    model = Net("GRU", num_layers=3, dropout=0.5).double()
    _, optimizer, recorder = recorded(tmp_path, model)

    def wide_step(model, optimizer):
        optimizer.zero_grad()
        x, y = batch()
        loss_of(model, x.double(), y.double()).backward()
        optimizer.step()

    explode(model, optimizer, wide_step)
    recording = Recording.read(recorder.files[0])
    assert autopsy(model, recording).norm == pytest.approx(recording.ring[-1]["norm"], rel=1e-6)


def test_copies_and_pickles_of_the_model_train_on_their_own(tmp_path):
    model, optimizer, recorder = recorded(tmp_path)
    step(model, optimizer)
    taken = recorder.step
    for copied in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        step(copied, torch.optim.SGD(copied.parameters(), lr=0.05))
    assert len(recorder.calls) == 1
    assert recorder.step == taken
    file = io.BytesIO()
    torch.save(model, file)
    clone = copy.deepcopy(recorder)
    assert (clone.step, clone.rule) == (0, recorder.rule)
    clone.attach(torch.optim.SGD(clone.model.parameters(), lr=0.1))


def test_a_second_recorder_is_refused_until_the_first_is_removed(tmp_path):
    model, optimizer = Net("GRU"), None
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    handle = ExplosionRecorder(model, tmp_path).attach(optimizer)
    second = ExplosionRecorder(model, tmp_path)
    with pytest.raises(InputError, match="has an ExplosionRecorder already"):
        second.attach(optimizer)
    handle.remove()
    handle.remove()
    second.attach(optimizer)
    step(model, optimizer)
    assert second.step == 1
    second.detach()
    assert not model._forward_hooks
    assert not model._forward_pre_hooks
    assert not optimizer._optimizer_step_pre_hooks
    assert not model.rnn.weight_hh_l0._post_accumulate_grad_hooks


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: ExplosionRecorder(nn.Linear(2, 1)), "contains no GRU, LSTM or RNN"),
        (lambda: ExplosionRecorder(Net("GRU"), steps=0), "steps=0"),
        (lambda: ExplosionRecorder(Net("GRU"), max_files="many"), "max_files='many'"),
        (lambda: SpikeRule(gradient=1.0), "must be above 1"),
        (
            lambda: ExplosionRecorder(Net("GRU")).attach(torch.optim.SGD(Net("GRU").parameters())),
            "holds none of the model's parameters",
        ),
    ],
)
def test_bad_use_is_refused(make, message):
    with pytest.raises(InputError, match=message):
        make()


@pytest.fixture(scope="module")
def recording_file(tmp_path_factory):
    torch.manual_seed(0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return trained(tmp_path_factory.mktemp("recorded"), "GRU", bad_targets)[2].files[0]


def test_the_file_runs_nothing_when_read(recording_file):
    content = torch.load(recording_file, weights_only=True)
    assert content["version"] == VERSION


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda data, content: data[: len(data) // 2], "not a recording, or a damaged one"),
        (lambda data, content: b"", "not a recording, or a damaged one"),
        (lambda data, content: b"step,loss\n1,2\n", "not a recording, or a damaged one"),
        (lambda data, content: pickle.dumps(print), "not a recording, or a damaged one"),
        (lambda data, content: {"weight": torch.zeros(2)}, "not a recording of an explosion"),
        (lambda data, content: content | {"version": 99}, "its version is 99, this spectralgru reads 1"),
        (lambda data, content: content | {"ring": 3}, "a damaged recording .*ring is 3"),
        (lambda data, content: content | {"colour": "red"}, "a damaged recording"),
        (lambda data, content: {k: v for k, v in content.items() if k != "ring"}, "a damaged recording"),
        (lambda data, content: content | {"calls": [{"x": 1}]}, "a damaged recording"),
    ],
)
def test_a_damaged_or_foreign_file_is_one_clear_error(tmp_path, recording_file, damage, message):
    harmed = damage(recording_file.read_bytes(), torch.load(recording_file, weights_only=True))
    path = tmp_path / "harmed.pt"
    if isinstance(harmed, bytes):
        path.write_bytes(harmed)
    else:
        torch.save(harmed, path)
    with pytest.raises(InputError, match=message):
        autopsy(None, path)


def test_the_rule_is_what_its_words_say(tmp_path):
    _, _, recorder = trained(tmp_path, "GRU", bad_targets, rule=SpikeRule(gradient=1e9, loss=1e9))
    assert recorder.files == []
    _, _, recorder = trained(tmp_path, "GRU", bad_targets, rule=SpikeRule(gradient=1e9))
    assert "the loss is" in Recording.read(recorder.files[0]).reason
    assert recorder.step == CALM + 1


def test_a_model_that_cannot_be_repeated_is_recorded_all_the_same(tmp_path):
    class Once(Net):
        calls = 0

        def forward(self, x):
            self.calls += 1
            if self.calls == 9:
                raise ValueError("no second time")
            return super().forward(x)

    model, optimizer, recorder = recorded(tmp_path, Once("GRU"))
    explode(model, optimizer)
    recording = Recording.read(recorder.files[0])
    assert recording.remarks == ["the recurrent modules could not be repeated: no second time"]
    with pytest.raises(InputError, match="give the model as well"):
        autopsy(None, recording)
    assert autopsy(Net("GRU"), recording).cause.kind == "candidate"


def test_lightning_trains_as_ever(tmp_path):
    lightning = pytest.importorskip("pytorch_lightning")

    class Module(lightning.LightningModule):
        def __init__(self):
            super().__init__()
            self.net = Net("GRU")

        def training_step(self, pair, index):
            if index == 7:
                with torch.no_grad():
                    EXPLODES(self.net)
            return loss_of(self.net, *pair)

        def configure_optimizers(self):
            optimizer = torch.optim.SGD(self.parameters(), lr=0.05)
            ExplosionRecorder(self, tmp_path, rule=SpikeRule(after=5)).attach(optimizer)
            return optimizer

    quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
    trainer = lightning.Trainer(
        accelerator="cpu",
        max_epochs=1,
        default_root_dir=tmp_path,
        gradient_clip_val=0.1,
        enable_model_summary=False,
        **quiet,
    )
    batches = torch.utils.data.DataLoader([batch() for _ in range(9)], batch_size=None)
    trainer.fit(Module(), batches)
    (path,) = tmp_path.glob("explosion-*.pt")
    recording = Recording.read(path)
    assert recording.step == 7
    assert recording.root == "net"
    assert recording.ring[0]["loss"] is not None  # from the closure
    assert autopsy(None, recording).cause.kind == "candidate"
