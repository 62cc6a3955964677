import pytest
import torch

from hsfusion.benchmarks.speed import peak_bytes_cpu
from hsfusion.nn import WeightedSum, weighted_sum

CASES = ["none", "scalar", "channel", "instance", "channel_instance", "image", "table", "channel_table"]
DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU"))]


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


def module(case, constraint="signed", channels=4):
    table = case.endswith("table")
    layer = WeightedSum(
        3,
        kind={"image": "instance", "table": "instance", "channel_table": "channel_instance"}.get(case, case),
        channels=channels,
        num_instances=5 if table else None,
        constraint=constraint,
        per="image" if case == "image" else "pixel",
        neighbourhood=3 if case == "instance" else 1,
    )
    for parameter in layer.parameters():
        torch.nn.init.normal_(parameter)
    return layer, {"index": torch.tensor([1, 3])} if table else {}


def inputs(*, dtype=torch.float32, grad=True):
    shapes = [(2, 4, 5, 6), (2, 4, 5, 6), (2, 1, 5, 6)]
    return [torch.randn(shape, dtype=dtype, requires_grad=grad) for shape in shapes]


@pytest.mark.parametrize("piece", [1, 7, 50])
@pytest.mark.parametrize("weight_shape", [(1, 1, 1, 1), (1, 4, 1, 1), (2, 1, 5, 6), (2, 4, 5, 6), (2, 1, 1, 1)])
def test_gradients_taken_in_pieces_are_those_of_the_expression(monkeypatch, weight_shape, piece):
    monkeypatch.setattr(weighted_sum, "_PIECE_CPU", piece)
    x = inputs(dtype=torch.float64)
    x[0] = x[0].detach().contiguous(memory_format=torch.channels_last).requires_grad_()
    weights = torch.randn(3, *weight_shape, dtype=torch.float64, requires_grad=True)
    upstream = torch.randn(2, 4, 5, 6, dtype=torch.float64)
    result = weighted_sum.weighted_sum(weights, *x)
    expected = sum(w * v for w, v in zip(weights, x, strict=True))
    torch.testing.assert_close(result, expected)
    for got, wanted in zip(
        torch.autograd.grad(result, [weights, *x], upstream),
        torch.autograd.grad(expected, [weights, *x], upstream),
        strict=True,
    ):
        torch.testing.assert_close(got, wanted)


def test_inputs_that_need_no_gradient_get_none():
    layer, _ = module("instance")
    x = [v.detach() for v in inputs()]
    layer(*x).square().sum().backward()
    assert layer.predictor.grad.abs().sum() > 0
    assert all(v.grad is None for v in x)


def test_gradient_of_weights_that_are_only_looked_at_reaches_the_inputs():
    layer, _ = module("instance", "affine")
    x = [v.double().detach().requires_grad_() for v in inputs()]
    assert torch.autograd.gradcheck(layer.double().predict, x)


@pytest.mark.parametrize("case", ["scalar", "channel", "instance", "channel_instance"])
def test_second_derivatives_are_right(case):
    layer, more = module(case, "affine")
    layer.double()
    layer.neighbourhood = 1
    x = [torch.randn(1, 4, 2, 1, dtype=torch.float64, requires_grad=True) for _ in range(3)]
    names, values = zip(*layer.named_parameters(), strict=True)

    def call(*args):
        parameters = dict(zip(names, args[3:], strict=True))
        return torch.func.functional_call(layer, parameters, args[:3], more).square()

    assert torch.autograd.gradgradcheck(call, (*x, *values))


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("kind", ["scalar", "channel", "instance"])
def test_memory_is_that_of_inputs_output_and_gradients(kind, layout):
    layer = WeightedSum(2, kind=kind, channels=64, constraint="affine")
    shape = (4, 64, 64, 64)

    def work():
        x = [torch.randn(shape).to(memory_format=layout).requires_grad_() for _ in range(2)]
        y = layer(*x)
        y.backward(torch.randn(shape).to(memory_format=layout))
        return x, y

    assert peak_bytes_cpu(work) <= 1.15 * 6 * 4 * 4 * 64 * 64 * 64


def test_memory_of_the_plain_expression_is_seen_to_be_larger():
    def work():
        a, b = (torch.randn(4, 64, 64, 64, requires_grad=True) for _ in range(2))
        w = torch.full((64, 1, 1), 0.3, requires_grad=True)
        y = w * a + (1 - w) * b
        y.backward(torch.randn(y.shape))
        return a, b, y

    assert peak_bytes_cpu(work) > 1.15 * 6 * 4 * 4 * 64 * 64 * 64


@pytest.mark.parametrize("case", CASES)
def test_one_graph_under_compile_with_the_same_gradients(case):
    layer, more = module(case)
    x = inputs()
    compiled = torch.compile(layer, backend="aot_eager", fullgraph=True)
    wanted = [*x, *(p for p in layer.parameters())]
    upstream = torch.randn(2, 4, 5, 6)
    results = [torch.autograd.grad(f(*x, **more), wanted, upstream) for f in (layer, compiled)]
    for eager, traced in zip(*results, strict=True):
        torch.testing.assert_close(eager, traced)


@pytest.mark.parametrize("case", CASES)
def test_exported_program_gives_the_same(case):
    layer, more = module(case)
    x = inputs(grad=False)
    program = torch.export.export(layer, tuple(x), more)
    torch.testing.assert_close(program.module()(*x, **more), layer(*x, **more))


@pytest.mark.parametrize("kind", ["instance", "channel_instance"])
def test_exported_weights_of_each_pixel_take_batches_of_any_size(kind):
    layer = WeightedSum(2, kind=kind, channels=4)
    torch.nn.init.normal_(layer.predictor)
    batch = {0: torch.export.Dim("batch", min=2, max=64)}
    three, five = ([torch.randn(number, width, 3, 3) for width in (4, 1)] for number in (3, 5))
    program = torch.export.export(layer, tuple(three), dynamic_shapes={"inputs": (batch, batch)})
    torch.testing.assert_close(program.module()(*five), layer(*five))


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("case", CASES)
def test_compiled_code_and_onnx_give_the_same(case):
    onnxruntime = pytest.importorskip("onnxruntime")
    layer, more = module(case)
    x = inputs(grad=False)
    expected = layer(*x, **more).detach()
    torch.testing.assert_close(torch.compile(layer, fullgraph=True)(*x, **more).detach(), expected)
    program = torch.onnx.export(layer, tuple(x), kwargs=more, dynamo=True, verbose=False)
    session = onnxruntime.InferenceSession(program.model_proto.SerializeToString())
    values = [*x, *more.values()]
    feeds = {slot.name: value.numpy() for slot, value in zip(session.get_inputs(), values, strict=True)}
    torch.testing.assert_close(torch.from_numpy(session.run(None, feeds)[0]), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("mixed", [(), (2,), (0, 1, 2)], ids=["half", "mixed", "single"])
@pytest.mark.parametrize("case", CASES)
def test_autocast_gives_the_sum_and_gradients_in_the_precision_of_the_parameters(case, mixed, device):
    layer, more = module(case, "affine")  # smooth: of a signed weight near 0, rounding turns the sign
    layer.to(device)
    more = {name: value.to(device) for name, value in more.items()}
    x = [v.detach().to(device).requires_grad_() for v in inputs()]
    wanted = [*x, *layer.parameters()]
    with torch.autocast(device, torch.bfloat16):
        # what comes out of a layer under autocast is half precision, a raster as it was read is not
        y = layer(*(v if i in mixed else v.bfloat16() for i, v in enumerate(x)), **more)
    assert y.dtype == (torch.float32 if mixed else torch.bfloat16)
    got = torch.autograd.grad(y.float().square().mean(), wanted)
    expected = torch.autograd.grad(layer(*x, **more).square().mean(), wanted)
    for half, single in zip(got, expected, strict=True):
        assert half.dtype == torch.float32
        torch.testing.assert_close(half, single, rtol=0.1, atol=0.1 * float(single.abs().max()))


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("case", CASES)
def test_sum_and_gradients_are_the_same_on_every_device(case, device):
    layer, more = module(case)
    x = inputs()
    upstream = torch.randn(2, 4, 5, 6)
    expected = torch.autograd.grad(layer(*x, **more), [*x, *layer.parameters()], upstream)
    layer.to(device)
    there = [v.detach().to(device).requires_grad_() for v in x]
    y = layer(*there, **{name: value.to(device) for name, value in more.items()})
    got = torch.autograd.grad(y, [*there, *layer.parameters()], upstream.to(device))
    for one, other in zip(got, expected, strict=True):
        torch.testing.assert_close(one.cpu(), other, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("case", CASES[:-2])
def test_empty_batch_gives_an_empty_sum(case):
    layer, _ = module(case)
    assert layer(*(v[:0] for v in inputs())).shape == (0, 4, 5, 6)
