"""bfloat16 is for devices that are faster in it."""

import pytest
import torch

from instructvla_training.number_type import autocast, number_type

CPU, CUDA = torch.device("cpu"), torch.device("cuda")


@pytest.mark.parametrize(
    ("capabilities", "device", "wanted", "used"),
    [
        ({"avx512_bf16": True}, CPU, "bfloat16", "bfloat16"),
        ({"amx_bf16": True, "avx512_bf16": False}, CPU, "bfloat16", "bfloat16"),
        ({"amx_bf16": True, "avx512_bf16": True, "cpu_name": "Intel Xeon"}, CPU, "bfloat16", "bfloat16"),
        ({"amx_bf16": False, "avx512_bf16": True, "cpu_name": "Intel Xeon"}, CPU, "bfloat16", "float32"),
        ({"avx512_bf16": False, "avx512_f": True}, CPU, "bfloat16", "float32"),
        ({}, CPU, "bfloat16", "float32"),
        ({}, CUDA, "bfloat16", "bfloat16"),
        ({"avx512_bf16": True}, CPU, "float32", "float32"),
    ],
)
def test_a_processor_that_gains_nothing_computes_in_float32(monkeypatch, capabilities, device, wanted, used):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities)
    assert number_type(device, wanted) == used


@pytest.mark.parametrize(("has", "dtype"), [(True, torch.bfloat16), (False, torch.float32)])
def test_products_are_of_that_type(monkeypatch, has, dtype):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx512_bf16": has})
    with autocast(CPU):
        assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype == dtype
