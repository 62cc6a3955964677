import pytest
import torch

from hsfusion.nn import WeightedSum

KINDS = ["scalar", "channel", "instance", "channel_instance"]
CONSTRAINTS = ["none", "affine", "convex", "signed"]


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
    layer = WeightedSum(2, kind="scalar", constraint="affine", init=[0.9, -0.4])
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
    torch.nn.init.normal_(layer.predictor)
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
    torch.nn.init.normal_(layer.predictor)
    x = [torch.randn(2, 4, 3, 3) for _ in range(3)]
    weights = layer.predict(*x)
    assert weights.shape == ((2, 3, 3, 3) if kind == "instance" else (2, 3, 4, 3, 3))
    assert weights.std() > 0.05
    expected = sum((weights[:, n, None] if kind == "instance" else weights[:, n]) * x[n] for n in range(3))
    torch.testing.assert_close(layer(*x), expected)
    with pytest.raises(ValueError, match="predict"):
        _ = layer.weights


@pytest.mark.parametrize("constraint", CONSTRAINTS)
@pytest.mark.parametrize(
    ("kind", "table"), [*((kind, False) for kind in KINDS), ("instance", True), ("channel_instance", True)]
)
def test_gradients_are_right(kind, table, constraint):
    layer = module(kind, constraint, table=table, activation=torch.tanh).double()
    for p in layer.parameters():
        torch.nn.init.normal_(p)
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
    assert module("scalar", "convex", init=0.0).weights.tolist() == pytest.approx([1 / 3] * 3)


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
