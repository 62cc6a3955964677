import io
import pickle
from functools import partial

import pytest
import torch
from torch import nn

from hsfusion.nn import WeightedSum

KINDS = ["scalar", "channel", "instance", "channel_instance"]
CONSTRAINTS = ["none", "affine", "convex", "signed"]
SOURCES = [(kind, source) for kind in ("instance", "channel_instance") for source in ("table", "image")]
DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU"))]


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


def module(kind, constraint, n=3, table=False, **more):
    return WeightedSum(n, kind=kind, channels=4, num_instances=5 if table else None, constraint=constraint, **more)


@pytest.mark.parametrize("constraint", CONSTRAINTS)
@pytest.mark.parametrize(("kind", "shape"), [("scalar", (3,)), ("channel", (3, 4))])
def test_weights_have_the_promised_shape_and_keep_the_constraint(kind, shape, constraint):
    layer = module(kind, constraint, init="normal")
    weights = layer.weights
    assert weights.shape == shape
    if constraint in {"affine", "convex"}:
        torch.testing.assert_close(weights.sum(0), torch.ones(shape[1:]))
    if constraint == "convex":
        assert (weights >= 0).all()
    if constraint == "signed":
        torch.testing.assert_close(weights.abs().sum(0), torch.ones(shape[1:]))


def test_output_is_the_sum_written_out():
    layer = module("channel", "signed", init="normal")
    x = [torch.randn(2, 4, 5, 6) for _ in range(3)]
    expected = sum(layer.weights[n][None, :, None, None] * x[n] for n in range(3))
    torch.testing.assert_close(layer(*x), expected)


def test_two_affine_scalars_are_w_and_one_minus_w():
    layer = WeightedSum(2, kind="scalar", constraint="affine", init=[1.2, -0.2])
    w = layer.weights[0]
    a, b = torch.randn(3, 4), torch.randn(3, 4)
    torch.testing.assert_close(layer(a, b), w * a + (1 - w) * b)


def test_uniform_start_is_one_nth_under_every_constraint():
    for constraint in CONSTRAINTS:
        torch.testing.assert_close(module("scalar", constraint).weights, torch.full((3,), 1 / 3))


def test_input_of_one_channel_counts_for_all():
    layer = module("channel", "none", n=2, init="normal")
    x, height = torch.randn(2, 4, 5, 5), torch.randn(2, 1, 5, 5)
    torch.testing.assert_close(layer(x, height), layer(x, height.expand_as(x)))


def test_one_channel_input_counts_the_same_in_predicted_weights():
    layer = module("instance", "signed", n=2)
    nn.init.normal_(layer.predictor)
    x, height = torch.randn(2, 4, 5, 5), torch.randn(2, 1, 5, 5)
    torch.testing.assert_close(layer(x, height), layer(x, height.expand_as(x)), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    "shapes",
    [
        [(2, 4, 5, 5), (2, 4, 5, 6)],
        [(2, 4, 5, 5), (2, 4, 1, 1)],
        [(2, 4, 5, 5), (1, 4, 5, 5)],
        [(2, 4, 5, 5), (2, 2, 5, 5)],
        [(2, 4, 5, 5), (2, 4)],
    ],
)
def test_shapes_that_would_broadcast_by_accident_are_refused(shapes):
    layer = WeightedSum(2, kind="scalar")
    with pytest.raises(ValueError, match="like the others"):
        layer(*(torch.zeros(shape) for shape in shapes))


def test_table_row_is_chosen_by_index():
    layer = module("instance", "convex", table=True)
    with torch.no_grad():
        layer.raw.normal_()
    x = [torch.randn(2, 4, 3, 3) for _ in range(3)]
    out = layer(*x, index=torch.tensor([4, 1]))
    for b, row in enumerate([4, 1]):
        expected = sum(layer.weights[row, n] * x[n][b] for n in range(3))
        torch.testing.assert_close(out[b], expected)


@pytest.mark.parametrize("kind", ["instance", "channel_instance"])
def test_predicted_weights_are_what_the_forward_pass_uses(kind):
    layer = module(kind, "signed")
    nn.init.normal_(layer.predictor)
    x = [torch.randn(2, 4, 3, 3) for _ in range(3)]
    weights = layer.predict(*x)
    assert weights.shape == ((2, 3, 3, 3) if kind == "instance" else (2, 3, 4, 3, 3))
    assert weights.std() > 0.05
    expected = sum((weights[:, n, None] if kind == "instance" else weights[:, n]) * x[n] for n in range(3))
    torch.testing.assert_close(layer(*x), expected)
    with pytest.raises(ValueError, match="predict"):
        _ = layer.weights


@pytest.mark.parametrize("constraint", CONSTRAINTS)
@pytest.mark.parametrize(("kind", "source"), [*((kind, "layer") for kind in KINDS), *SOURCES])
def test_gradients_are_right(kind, source, constraint):
    table = source == "table"
    layer = module(kind, constraint, table=table, per="image" if source == "image" else "pixel", activation="tanh")
    layer.double()
    for p in layer.parameters():
        nn.init.normal_(p)
    x = [torch.randn(2, 4, 2, 3, dtype=torch.double, requires_grad=True) for _ in range(2)]
    x.append(torch.randn(2, 1, 2, 3, dtype=torch.double, requires_grad=True))
    index = torch.tensor([3, 0]) if table else None
    names, values = zip(*layer.named_parameters(), strict=True)

    def call(*args):
        inputs, parameters = args[:3], dict(zip(names, args[3:], strict=True))
        return torch.func.functional_call(layer, parameters, inputs, {"index": index})

    assert torch.autograd.gradcheck(call, (*x, *values))


@pytest.mark.parametrize(
    "bad",
    [
        *({"kind": "pixel"}, {"constraint": "l1"}, {"kind": "channel"}, {"init": "zeros"}, {"init": 0.0}),
        *({"init": [0.5, 0.3, 0.2]}, {"init": "orthogonal"}, {"init": nn.init.zeros_}, {"init": torch.clone}),
        *({"activation": "swoosh"}, {"per": "pixels"}, {"per": "image"}),
        *({"num_inputs": 0}, {"neighbourhood": 2}, {"neighbourhood": 0}, {"num_instances": 3}),
    ],
)
def test_wrong_arguments_are_refused(bad):
    with pytest.raises(ValueError, match="expected"):
        WeightedSum(**({"num_inputs": 2, "kind": "scalar"} | bad))


def test_a_normal_start_is_spread_evenly_over_the_channels():
    torch.manual_seed(0)
    start = WeightedSum(5, channels=400, init="normal").raw.detach() * 5  # (N, C), of standard deviation 1
    parts = torch.special.ndtr(start).sort(1).values * 400
    assert ((parts - torch.arange(400)).clamp(-1e-3, 1 + 1e-3) == parts - torch.arange(400)).all()
    assert not torch.equal(start[0].argsort(), start[1].argsort())


def test_start_values_can_be_given_for_every_weight():
    values = torch.randn(3, 4)
    torch.testing.assert_close(module("channel", "none", init=values).weights.detach(), values)


@pytest.mark.parametrize("rows", [None, 4])
@pytest.mark.parametrize("channels", [8, 64, 512])
@pytest.mark.parametrize(
    ("init", "variance"),
    [("xavier", 2 * 8 / (8 + 1)), ("kaiming", 2.0), ("orthogonal", 1.0), (nn.init.xavier_uniform_, 2 * 8 / (8 + 1))],
)
def test_variance_of_the_output_depends_on_the_number_of_inputs_only(init, variance, channels, rows):
    kind = "channel" if rows is None else "channel_instance"
    starts = [
        WeightedSum(8, kind=kind, channels=channels, num_instances=rows, constraint="none", init=init).weights
        for _ in range(4096 // channels)
    ]
    dim = 0 if rows is None else 1
    mean = torch.stack([start.detach().square().sum(dim).mean() for start in starts]).mean()
    assert float(mean) == pytest.approx(variance, rel=0.06)


@pytest.mark.parametrize("channels", [2, 3, 7])
def test_an_orthogonal_start_is_orthogonal_among_each_n_channels(channels):
    layer = WeightedSum(
        3, kind="channel_instance", channels=channels, num_instances=2, constraint="none", init="orthogonal"
    )
    for row in layer.weights.detach():
        for some in row.T.split(3):
            torch.testing.assert_close(some @ some.T, torch.eye(len(some)), atol=1e-5, rtol=0)


def test_a_start_of_any_function_of_torch_fills_the_raw_weights():
    layer = module("channel", "affine", init=partial(nn.init.uniform_, a=2, b=3))
    assert ((layer.raw >= 2) & (layer.raw <= 3)).all()
    assert layer.raw.unique().numel() == 12
    scalar = WeightedSum(2000, kind="scalar", constraint="none", init=partial(nn.init.normal_, mean=1, std=0.1))
    assert float(scalar.raw.detach().mean()) == pytest.approx(1, abs=0.02)
    assert float(scalar.raw.detach().std()) == pytest.approx(0.1, rel=0.1)


@pytest.mark.parametrize(("kind", "table"), [("scalar", False), ("channel", False), ("instance", True)])
@pytest.mark.parametrize(
    ("constraint", "values"),
    [
        *(("none", [0.8, 0.4]), ("affine", [0.8, 0.2]), ("affine", [1.5, -0.5])),
        *(("convex", [0.8, 0.2]), ("signed", [0.8, 0.2]), ("signed", [0.7, -0.3])),
    ],
)
def test_a_layer_starts_at_the_weights_given(kind, table, constraint, values):
    weights = module(kind, constraint, n=2, table=table, init=values).weights.detach()
    rows = weights if table else weights.reshape(2, -1).T
    torch.testing.assert_close(rows, torch.tensor(values).expand(rows.shape))


def test_predicted_weights_start_at_those_given():
    x = [torch.randn(2, 4, 3, 3) for _ in range(2)]
    torch.testing.assert_close(
        module("instance", "convex", n=2, init=[0.8, 0.2])(*x), 0.8 * x[0] + 0.2 * x[1], atol=1e-5, rtol=1e-5
    )


@pytest.mark.parametrize(
    ("constraint", "values"),
    [
        *(("affine", [0.8, 0.4]), ("convex", [0.8, 0.4]), ("convex", [1.2, -0.2]), ("convex", [1.0, 0.0])),
        *(("signed", [0.8, -0.4]), ("signed", [0.0, 0.0]), ("none", [0.5, float("nan")])),
    ],
)
def test_a_start_that_the_constraint_cannot_hold_is_refused(constraint, values):
    with pytest.raises(ValueError, match=f"expected .* constraint '{constraint}'"):
        module("channel", constraint, n=2, init=values)


@pytest.mark.parametrize("row", [-1, 5])
@pytest.mark.parametrize("device", DEVICES)
def test_rows_outside_the_table_are_refused(device, row):
    layer = module("instance", "convex", table=True).to(device)
    x = [torch.ones(2, 4, 1, 1, device=device)] * 3
    with pytest.raises(ValueError, match="rows 0 to 4"):
        layer(*x, index=torch.tensor([0, row], device=device))
    with pytest.raises(ValueError, match=r"shape \(1,\), expected int64 \(2,\)"):
        layer(*x, index=torch.tensor([0], device=device))


@pytest.mark.parametrize("kind", ["instance", "channel_instance"])
def test_weights_per_image_follow_from_the_mean_of_its_inputs(kind):
    layer, pixels = module(kind, "signed", per="image"), module(kind, "signed")
    nn.init.normal_(layer.predictor)
    pixels.predictor.data.copy_(layer.predictor.data)
    x = [torch.randn(2, 4, 3, 5) for _ in range(3)]
    weights = layer.predict(*x)
    assert weights.shape == ((2, 3) if kind == "instance" else (2, 3, 4))
    torch.testing.assert_close(weights, pixels.predict(*(v.mean((2, 3)) for v in x)))
    each = weights.reshape(2, 3, -1, 1, 1)
    torch.testing.assert_close(layer(*x), sum(each[:, n] * x[n] for n in range(3)))
    torch.testing.assert_close(layer(*(v[:, :, 0, 0] for v in x)), pixels(*(v[:, :, 0, 0] for v in x)))


@pytest.mark.parametrize(
    ("kind", "shape"),
    [
        *(("none", (3,)), ("scalar", (3,)), ("channel", (3, 4)), ("instance", (2, 3)), ("instance", (2, 3, 5, 6))),
        *(("channel_instance", (2, 3, 4)), ("channel_instance", (2, 3, 4, 5, 6))),
    ],
)
def test_weights_given_by_the_caller_take_the_place_of_the_layers(kind, shape):
    layer = module(kind, "convex").double()
    x = [torch.randn(2, 4, 5, 6, dtype=torch.double, requires_grad=True) for _ in range(3)]
    weights = torch.randn(shape, dtype=torch.double, requires_grad=True)
    batch = weights if kind.endswith("instance") else weights.unsqueeze(0)
    each = batch if kind.startswith("channel") else batch.unsqueeze(2)
    each = each.reshape(*each.shape, *(() if len(shape) > 3 else (1, 1)))
    torch.testing.assert_close(layer(*x, weights=weights), sum(each[:, n] * x[n] for n in range(3)))
    small = [v[:, :, :2, :1].detach().requires_grad_() for v in x]
    part = (weights[..., :2, :1] if len(shape) > 3 else weights).detach().requires_grad_()
    assert torch.autograd.gradcheck(lambda w, *v: layer(*v, weights=w), (part, *small))


@pytest.mark.parametrize("shape", [(3,), (3, 2), (1, 3), (2, 3, 5, 5), (2, 3, 4), (2, 3, 4, 1, 1)])
def test_weights_of_another_shape_are_refused(shape):
    x = [torch.ones(2, 4, 5, 6)] * 3
    with pytest.raises(ValueError, match=r"expected \(2, 3\) or \(2, 3, 5, 6\)"):
        module("instance", "none")(*x, weights=torch.ones(shape))
    with pytest.raises(ValueError, match="both"):
        module("instance", "none", table=True)(*x, weights=torch.ones(2, 3), index=torch.tensor([0, 1]))


@pytest.mark.parametrize("name", ["relu", "leaky_relu", "elu", "gelu", "silu", "sigmoid", "tanh", "softplus"])
def test_an_activation_can_be_named(name):
    x = [torch.randn(2, 4, 3) for _ in range(3)]
    layer = pickle.loads(pickle.dumps(module("channel", "signed", activation=name)))
    function = getattr(nn.functional, name)
    torch.testing.assert_close(layer(*x), function(module("channel", "signed")(*x)))
    assert torch.equal(layer(*x), module("channel", "signed", activation=function)(*x))


@pytest.mark.parametrize("name", ["kind", "constraint", "per"])
def test_a_state_that_means_something_else_is_refused(name):
    first = {"num_inputs": 3, "kind": "instance", "channels": 3, "constraint": "convex"}
    other = {"kind": "scalar", "constraint": "signed", "per": "image"}
    saved = io.BytesIO()
    torch.save(nn.Sequential(WeightedSum(**first)).state_dict(), saved)
    saved.seek(0)
    state = torch.load(saved, weights_only=True)
    nn.Sequential(WeightedSum(**first)).load_state_dict(state)
    layer = nn.Sequential(WeightedSum(**(first | {name: other[name]})))
    with pytest.raises(
        ValueError, match=rf"^0\.{name} of the state is '{first.get(name, 'pixel')}', expected '{other[name]}'"
    ):
        layer.load_state_dict(state)


def test_a_state_is_tensors_only_and_loads_without_its_metadata():
    layer = module("channel", "convex", init="normal")
    state = dict(layer.state_dict())
    assert list(state) == ["raw"]
    module("channel", "convex").load_state_dict(state)


def test_numbers_that_are_no_floats_are_refused():
    with pytest.raises(ValueError, match=r"torch\.int64 of shape .* expected floating"):
        WeightedSum(2, kind="scalar")(torch.ones(2, 3, dtype=torch.int64), torch.ones(2, 3, dtype=torch.int64))
    x = [torch.ones(2, 4, 1, 1)] * 3
    with pytest.raises(ValueError, match=r"index is torch\.uint8"):
        module("instance", "convex", table=True)(*x, index=torch.tensor([0, 1], dtype=torch.uint8))


def least_squares(x, target, constraint):
    """Closed form (N,) of min |Σ w x - target|², over all entries."""
    columns = torch.stack([v.reshape(-1) for v in x], 1).double()
    target = target.reshape(-1, 1).double()
    if constraint == "none":
        return torch.linalg.lstsq(columns, target).solution[:, 0]
    # the last weight is 1 minus the others
    free = torch.linalg.lstsq(columns[:, :-1] - columns[:, -1:], target - columns[:, -1:]).solution[:, 0]
    return torch.cat([free, 1 - free.sum(0, keepdim=True)])


@pytest.mark.parametrize("optimizer", ["Adam", "SGD"])
@pytest.mark.parametrize("constraint", ["none", "affine"])
@pytest.mark.parametrize("kind", ["scalar", "channel"])
def test_it_learns_the_least_squares_solution(kind, constraint, optimizer):
    x = [torch.randn(256, 3, 2, 2) for _ in range(3)]
    x[2] = x[2] + 0.5 * x[0]  # inputs that correlate, and a target that no weights give
    target = 0.9 * x[0] - 0.4 * x[1] + 0.3 * x[2].abs() + 0.3 * torch.randn(256, 3, 2, 2)
    layer = WeightedSum(3, kind=kind, channels=3 if kind == "channel" else None, constraint=constraint)
    step = torch.optim.Adam if optimizer == "Adam" else torch.optim.SGD
    step = step(layer.parameters(), 0.02 if optimizer == "Adam" else 0.3)
    for _ in range(600):
        step.zero_grad()
        (layer(*x) - target).square().mean().backward()
        step.step()
    if kind == "scalar":
        expected = least_squares(x, target, constraint)
    else:
        each = [least_squares([v[:, c] for v in x], target[:, c], constraint) for c in range(3)]
        expected = torch.stack(each, 1)
    torch.testing.assert_close(layer.weights.detach().double(), expected, atol=1e-3, rtol=0)
