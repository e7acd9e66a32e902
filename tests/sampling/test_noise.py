from types import SimpleNamespace

import numpy as np
import torch
from scipy import stats

from slackdlm.sampling import prediction
from slackdlm.sampling.noise import Cells, RowNoise, uniforms

V = 126_464
CUDA = torch.device("cuda:0")


def cells(*rows: int) -> Cells:
    return Cells(np.array(rows), np.arange(len(rows)))


def test_uniforms_are_the_outputs_of_splitmix64():
    published = (0xE220A8397B1DCDAF, 0x6E789E6AA1B965F4, 0x06C45D188009454F)  # of seed 0
    expected = [(output >> 11) / 2**53 for output in published]
    assert uniforms(torch.tensor([0, 5]), 3)[0].tolist() == expected


def test_uniforms_of_a_row_s_keys_are_uniform_and_uncorrelated():
    keys = torch.from_numpy(RowNoise(0, [3]).keys(cells(*[0] * 50)))
    drawn = uniforms(keys, 2000).numpy()
    assert drawn.min() >= 0
    assert drawn.max() < 1
    assert stats.kstest(drawn.ravel(), "uniform").pvalue > 1e-3
    correlation = np.corrcoef(drawn) - np.eye(50)
    assert np.abs(correlation).max() < 6 / 2000**0.5


def test_keys_of_a_row_depend_neither_on_batch_mates_nor_on_parts():
    together = RowNoise(7, [0, 1, 2]).keys(cells(0, 0, 0, 1, 1))
    alone = RowNoise(7, [1])
    parts = [alone.keys(cells(0)), alone.keys(cells(0))]
    assert np.concatenate(parts).tolist() == together[3:].tolist()
    assert len(set(together.tolist())) == 5


def test_on_a_gpu_the_host_draws_one_number_a_cell_however_large_the_vocabulary(monkeypatch):
    drawn: list[tuple[int, ...]] = []
    keys = RowNoise.keys

    def counted(self: RowNoise, of: Cells) -> np.ndarray:
        drawn.append(keys(self, of).shape)
        return keys(self, of)

    monkeypatch.setattr(RowNoise, "keys", counted)
    monkeypatch.setattr(RowNoise, "draw", None)
    elsewhere = SimpleNamespace(device=torch.device("meta"), noise=RowNoise(0, [0]))
    made = prediction.Predictor._uniforms(elsewhere, cells(0, 0), V)
    assert made.shape == (2, V)
    assert drawn == [(2,)]


def test_a_gpu_reads_the_output_layer_of_llada_once_for_hundreds_of_cells():
    sizes = [part.stop - part.start for part in prediction._chunks(8 * 1024, V, CUDA)]
    assert sum(sizes) >= 8 * 1024
    assert min(sizes) >= 256


def test_a_row_s_uniforms_are_those_of_its_stream_in_order():
    noise, rows = RowNoise(7, [4, 0, 9, 1]), cells(0, 0, 2)  # the last has ended
    first, second = noise.draw(rows, 5), noise.draw(rows, 3)
    streams = [np.random.Generator(np.random.PCG64([7, row])) for row in (4, 9)]
    for drawn in (first, second):
        width = drawn.shape[1]
        expected = np.concatenate([streams[0].random((2, width)), streams[1].random((1, width))])
        np.testing.assert_array_equal(drawn.numpy(), expected)
