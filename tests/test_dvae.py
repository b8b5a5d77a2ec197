"""The discrete VAE: its network, its losses, and its training."""

import json
import math

import dvae_reference
import pytest
import torch
from interruptions import at_call
from recording import draw, shapes_of
from test_configs import composed, folder, trained
from test_resume import SMALL, assert_equal_outcome

import spine
from spine.checkpoints.tokenizer_files import load_tokenizer
from spine.commands import train
from spine.commands.eval import checkpoint_config
from spine.config import checks
from spine.config.building import build_run
from spine.errors import InputError
from spine.interfaces import Labels
from spine.models.assembly import network_of
from spine.profiling import count_multiply_adds
from spine.tasks.dvae.losses import kl_to_uniform, logit_laplace_loss, squared_error
from spine.tasks.dvae.metrics import perplexity
from spine.tasks.dvae.task import TokenizerTraining
from spine.tokenizers import dvae
from spine.tokenizers.dvae import VARIANTS, DiscreteVAE, DVAEVariant, TokenizerConfig
from spine.training.run_folder import RunFolder

TINY = DVAEVariant(codes=16, width=4, decoder_input=4, blocks=1)
RUN = (
    "task=dvae", "image_size=[64,64]", "dataset.batch_size=4", "dataset.num_workers=0", "trainer.accelerator=cpu",
    "trainer.precision=32-true", "trainer.max_epochs=1", "dataset.length={train: 8, val: 6, test: 4}",
)  # fmt: skip


@pytest.fixture
def tiny(monkeypatch):
    """The variant `tiny`, for fast tests."""
    monkeypatch.setitem(VARIANTS, "tiny", TINY)


def count(module):
    return sum(parameter.numel() for parameter in module.parameters())


# ---- the network ---------------------------------------------------------------------------------------------------------


def test_the_networks_have_the_published_sizes():
    with torch.device("meta"):
        dalle, small = DiscreteVAE("dalle"), DiscreteVAE("small")
    assert count(dalle.encoder) == 53_786_240 and dalle.num_codes == 8192
    assert count(small) < 2_000_000 and small.num_codes == 512
    assert dalle.encoder(torch.empty(1, 3, 112, 112, device="meta")).shape == (1, 8192, 14, 14)
    assert dalle.decoder(torch.empty(1, 8192, 14, 14, device="meta")).shape == (1, 6, 112, 112)


def test_tokens_are_the_most_probable_codes_in_raster_order(tiny):
    net = DiscreteVAE("tiny").eval()
    image = torch.rand(2, 3, 16, 24)
    logits, pixels = net(image)
    tokens = net.encode(image)
    assert logits.shape == (2, 16, 2, 3) and pixels.shape == (2, 6, 16, 24) and tokens.shape == (2, 6)
    assert torch.equal(tokens[1, 4], logits[1, :, 1, 1].argmax())
    decoded = net.decode_tokens(tokens, (2, 3))
    torch.testing.assert_close(decoded, dvae.expected_pixels(pixels))
    assert decoded.min() >= 0 and decoded.max() <= 1


def test_training_samples_codes_and_a_low_temperature_approaches_the_most_probable_code(tiny, monkeypatch):
    net = DiscreteVAE("tiny")
    image = torch.rand(2, 3, 16, 16)
    assert not torch.equal(net(image, 1.0).pixels, net(image, 1.0).pixels)
    monkeypatch.setattr(torch.Tensor, "exponential_", lambda self: self.fill_(1.0))  # no noise
    torch.testing.assert_close(net(image, 1e-6).pixels, net(image).pixels, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize(
    ("size", "nearest"), [((60, 64), "Nearest to 60 that fit: 56 and 64"), ((64, 4), "Nearest to 4 that fit: 8")]
)
def test_other_sizes_are_refused_with_the_nearest_ones(tiny, size, nearest):
    with pytest.raises(InputError, match=f"one token for 8x8 pixels; {size[0]}x{size[1]} is not a multiple. {nearest}"):
        DiscreteVAE("tiny").encode(torch.rand(1, 3, *size))


def test_multiply_adds_count_encoder_and_decoder():
    whole = count_multiply_adds(TokenizerConfig("small", (64, 64)))
    assert whole == 4 * count_multiply_adds(TokenizerConfig("small", (32, 32)))
    first = 64 * 64 * 32 * 3 * 49  # of the 7x7 convolution
    assert 5 * first < whole < 1e9


# ---- losses --------------------------------------------------------------------------------------------------------------


@pytest.fixture
def reference_task(monkeypatch):
    """The task with the network of the record, in float64 and with its weights and noise."""
    monkeypatch.setitem(VARIANTS, "reference", DVAEVariant(**dvae_reference.SIZES))
    net = DiscreteVAE("reference").double()
    net.load_state_dict(draw(shapes_of(net)))
    image, noise = dvae_reference.inputs()
    monkeypatch.setattr(torch.Tensor, "exponential_", lambda self: self.copy_(noise))
    constant = {"start_temperature": dvae_reference.TEMPERATURE, "end_temperature": dvae_reference.TEMPERATURE}
    return TokenizerTraining(model=net, labels=Labels(), kl_weight=dvae_reference.BETA, **constant).train(), image


def assert_near(found, expected):
    found, expected = (torch.as_tensor(values, dtype=torch.float64) for values in (found, expected))
    assert (found - expected).abs().max() < 1e-9 * expected.abs().max()


def test_a_training_step_equals_that_of_the_published_networks(reference_task):
    task, image = reference_task
    expected = json.loads(dvae_reference.RECORD.read_text())
    loss, output = task.evaluate_batch({"image": image})
    loss.backward()
    assert_near(task.model.logits(image).flatten()[::97].tolist(), expected["logits"])
    assert_near(output.flatten()[::23].tolist(), expected["output"])
    assert_near(loss.item(), expected["loss"])
    found = dvae_reference.gradients(dict(task.model.named_parameters()))
    assert found.keys() == expected["step"].keys() == task.model.state_dict().keys()
    for name, values in expected["step"].items():
        assert_near(found[name], values)


@pytest.mark.slow
def test_the_record_equals_the_package():
    pytest.importorskip("dall_e")
    found, expected = dvae_reference.record(), json.loads(dvae_reference.RECORD.read_text())
    for key in ("logits", "output", "loss"):
        assert_near(found[key], expected[key])
    for name, values in expected["step"].items():
        assert_near(found["step"][name], values)


def test_the_logit_laplace_distribution_integrates_to_one():
    output = torch.tensor([0.4, -0.7, 1.5, -0.5, -1.0, 0.0], dtype=torch.float64).view(1, 6, 1, 1)
    x = torch.linspace(0, 1, 200_001, dtype=torch.float64)[1:-1]  # values of the distribution, mapped back to pixels
    pixels = ((x - 0.1) / 0.8).view(1, 1, 1, -1).expand(1, 3, 1, -1)
    density = (-logit_laplace_loss(output.expand(1, 6, 1, len(x)), pixels)).exp()
    torch.testing.assert_close(density.sum(-1) / 200_000, torch.ones(1, 3, 1, dtype=torch.float64), atol=1e-4, rtol=0)


def test_constant_areas_have_a_finite_loss():
    output = torch.zeros(1, 6, 8, 8, requires_grad=True)
    with torch.no_grad():
        output[:, :3], output[:, 3:] = math.log(0.1 / 0.9), -50.0  # the exact mean of black pixels, and a tiny scale
    loss = logit_laplace_loss(output, torch.zeros(1, 3, 8, 8)).mean()
    loss.backward()
    assert loss.isfinite() and output.grad.isfinite().all()


def test_squared_error_is_of_pixels():
    mean = torch.tensor([0.1, 0.5, 0.9]).logit().view(1, 3, 1, 1)  # pixels 0, 0.5 and 1
    error = squared_error(torch.cat([mean, torch.zeros_like(mean)], 1), torch.full((1, 3, 1, 1), 0.5))
    torch.testing.assert_close(error.flatten(), torch.tensor([0.25, 0.0, 0.25]))


def test_divergence_is_zero_for_equal_logits_and_maximal_for_one_code():
    torch.testing.assert_close(kl_to_uniform(torch.zeros(1, 16, 2, 2)), torch.zeros(1, 2, 2), atol=1e-6, rtol=0)
    sure = torch.zeros(1, 16, 1, 1)
    sure[:, 3] = 1000.0
    assert kl_to_uniform(sure).item() == pytest.approx(math.log(16))


def test_perplexity_is_the_number_of_equally_used_codes():
    assert perplexity(torch.tensor([5, 5, 0, 5, 5])) == pytest.approx(4)
    assert perplexity(torch.tensor([9, 0])) == pytest.approx(1)


def test_temperature_and_weight_follow_the_steps(tiny):
    class Trainer:
        global_step, estimated_stepping_batches = 0, 1000

    task = TokenizerTraining(model=DiscreteVAE("tiny"), labels=Labels(), annealing=0.5, kl_warmup=0.1).train()
    task._trainer = Trainer()
    values = {}
    for step in (0, 50, 100, 250, 500, 1000):
        Trainer.global_step = step
        values[step] = task.training_values()
    assert values[0] == {"temperature": 1.0, "kl_weight": 0.0}
    assert values[50]["kl_weight"] == pytest.approx(3.3) and values[100]["kl_weight"] == 6.6
    assert values[250]["temperature"] == pytest.approx((1 + 1 / 16) / 2)
    assert values[500]["temperature"] == values[1000]["temperature"] == 1 / 16
    Trainer.global_step = 0
    assert task.eval().beta() == 6.6


# ---- the command ---------------------------------------------------------------------------------------------------------


def test_the_task_has_neither_backbone_nor_head():
    config = checks.prepare(composed(*RUN))
    assert "backbone" not in config and "head" not in config
    assert network_of(config, None) == TokenizerConfig("small", (64, 64))


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["backbone=vit"], "Task 'dvae' has a network of its own and takes no backbone. Leave out backbone=..."),
        (["head=linear"], "Task 'dvae' has a network of its own and takes no head. Leave out head=..."),
        (["task.variant=smal"], "Unknown variant 'smal' of dvae. Did you mean 'small'? Choices: small, dalle."),
        (["task.variant=null"], "task.variant is null; it must be the name of a variant"),
        (["task.reconstruction=l1"], "task.reconstruction is 'l1'; it must be logit_laplace or mse."),
        (["task.kl_weight=-1"], "task.kl_weight is -1; it must be a weight, 0 or more, or null"),
        (["+task.temperature=1"], "Unknown key 'task.temperature'."),
        (["image_size=[60,64]"], "The tokenizer has one token for 8x8 pixels; 60x64 is not a multiple. Nearest to 60"),
        (
            ["dataset.mean=[0.5,0.5,0.5]"],
            "dataset.mean is [0.5, 0.5, 0.5] and dataset.std is [1, 1, 1]; task 'dvae' reads pixels in 0..1",
        ),
        (["optimizer.layer_decay=0.9"], None),
    ],
)
def test_mistakes_are_reported(overrides, message):
    with pytest.raises(InputError) as error:
        config = checks.prepare(composed("task=dvae", *overrides))
        build_run(config).task.configure_optimizers()
    assert str(error.value).startswith(message or "optimizer.layer_decay is 0.9, but this network has no backbone")


def test_create_model_names_the_task():
    with pytest.raises(InputError, match="Task 'dvae' has a network of its own, without backbone and head"):
        spine.create_model("vit", task="dvae")


def test_the_run_id_has_the_variant():
    small, dalle = folder("task=dvae"), folder("task=dvae", "task.variant=dalle")
    assert small.startswith("logs/train/runs/dvae-small_shapes_") and dalle.startswith("logs/train/runs/dvae-dalle_shapes_")
    assert folder("task=dvae", "task.kl_weight=1.0") != small


@pytest.mark.parametrize("reconstruction", ["logit_laplace", pytest.param("mse", marks=pytest.mark.slow)])
def test_a_run_writes_its_metrics_and_pictures_and_its_checkpoint_is_a_tokenizer(tmp_path, caplog, reconstruction):
    caplog.set_level("INFO")
    trained(tmp_path, *RUN, f"task.reconstruction={reconstruction}")
    results = json.loads((tmp_path / "metrics.json").read_text())
    assert results["monitor"] == "val/mse" and results["mode"] == "min"
    assert results["metrics"].keys() >= {"val/loss", "val/mse", "val/kl", "val/perplexity", "val/codes_used"}
    assert 1 <= results["metrics"]["val/perplexity"] <= 512 and 1 / 512 <= results["metrics"]["val/codes_used"] <= 1
    assert results["costs"]["multiply_adds"] > 0
    assert (tmp_path / "figures" / "val_reconstruction.png").is_file()
    assert "dvae small, " in caplog.text and "task dvae, 64x64 pixels" in caplog.text
    assert "train/temperature" in (tmp_path / "metrics.csv").read_text()
    net, task = load_tokenizer(results["checkpoint"]), TokenizerTraining.load_from_checkpoint(results["checkpoint"])
    assert not net.training and not any(parameter.requires_grad for parameter in net.parameters())
    assert all(torch.equal(x, y) for x, y in zip(net.state_dict().values(), task.model.state_dict().values(), strict=True))
    assert task.reconstruction == reconstruction and task.model.config == TokenizerConfig("small", (64, 64))
    assert "backbone" not in checkpoint_config(results["checkpoint"])


@pytest.mark.slow
def test_a_crashed_and_resumed_run_draws_the_same_noise(tmp_path, monkeypatch):
    config = composed("task=dvae", *SMALL)
    whole, resumed = (RunFolder(tmp_path / name) for name in ("whole", "resumed"))
    for run in (whole, resumed):
        run.path.mkdir()
    train.train_run(config, whole)
    at_call(monkeypatch, TokenizerTraining, 9)
    with pytest.raises(RuntimeError):
        train.train_run(config, resumed)
    train.train_run(config, resumed)
    assert_equal_outcome(whole.path, resumed.path)


def test_noise_depends_on_the_seed_alone(tiny):
    net, image = DiscreteVAE("tiny"), torch.rand(1, 3, 16, 16)
    outputs = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        outputs.append(net(image, 1.0).pixels)
    assert torch.equal(outputs[0], outputs[1]) and not torch.equal(outputs[0], outputs[2])


@pytest.mark.slow
def test_eval_export_and_rerun_work(tmp_path):
    from test_runs import call

    call("train.py", *RUN, folder=tmp_path)
    (run,) = (tmp_path / "logs/train/runs").iterdir()
    best = run / "checkpoints/best.ckpt"
    done = call("eval.py", f"ckpt_path={best}", "split=test", "trainer.accelerator=cpu", folder=tmp_path)
    assert "test/perplexity" in done.stdout
    call("export.py", f"ckpt_path={best}", "out=tokenizer.safetensors", folder=tmp_path)
    ours, exported = load_tokenizer(best), load_tokenizer(tmp_path / "tokenizer.safetensors")
    assert all(torch.equal(x, y) for x, y in zip(ours.state_dict().values(), exported.state_dict().values(), strict=True))
    refused = call("export.py", f"ckpt_path={best}", "format=timm", "out=x.pth", folder=tmp_path, ok=False)
    assert "This network cannot be written as 'timm'" in refused.stderr and "Traceback" not in refused.stderr
    again = call("train.py", f"rerun={run}", folder=tmp_path)
    assert "identical" in again.stdout or "equal" in again.stdout, again.stdout
