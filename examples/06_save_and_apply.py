"""Save an edit, load it, and apply it to a model and to a file of weights.

An edit is a small safetensors file: its factors, and a fingerprint of the weights that it was learned for.
Applies one to a model object, takes it back bit for bit, applies it to a state-dict file (what the command
``rledit apply`` does), and shows that other weights are refused. Takes a second.
"""

import tempfile
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import nn

import rledit


def make_edit(model: nn.Module) -> rledit.Edit:
    """A short search is enough here: what matters is the file."""
    labels = torch.randint(4, (500,))
    inputs = torch.randn(4, 8)[labels] + torch.randn(500, 8)
    samples = rledit.Samples(inputs, labels, rledit.forget_groups(labels, 0))
    task = rledit.Task(model, ["2"], samples, rledit.Unlearning())
    return rledit.PPO(rledit.ShiftWorld(task, num_envs=64, rank=2), seed=0).train(candidates=640).edit


def main() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 4)).eval()
    edit = make_edit(model)

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        save_file(model.state_dict(), folder / "model.safetensors")
        edit.save(folder / "edit.safetensors")
        print(f"edit.safetensors: {(folder / 'edit.safetensors').stat().st_size:,} bytes")
        loaded = rledit.Edit.load(folder / "edit.safetensors")
        print(f"loaded: {loaded!r}")

        # To a model object, and back.
        original = model[2].weight.detach().clone()
        loaded.apply_(model)
        print(f"largest change of a weight: {(model[2].weight - original).abs().max():.3f}")
        from_model = {key: value.clone() for key, value in model.state_dict().items()}
        loaded.revert_(model)
        print(f"reverted, bit for bit: {torch.equal(model[2].weight, original)}")

        # To a file of weights; rledit apply --edit ... --model ... --out ... does the same.
        edited = loaded.apply_to_state_dict(load_file(folder / "model.safetensors"))
        save_file(edited, folder / "edited.safetensors")
        again = load_file(folder / "edited.safetensors")
        print(f"file and model agree: {all(torch.equal(again[k], from_model[k]) for k in again)}")

    # Other weights than the edit was learned for.
    other = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 4))
    try:
        loaded.apply_(other)
    except ValueError as error:
        print(f"refused: {str(error)[:60]}...")


if __name__ == "__main__":
    main()
