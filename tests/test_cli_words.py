"""Suggestions for wrong words: what the field calls our options, and misspelt ones; a wrong suggestion is none."""

import pytest

NONE = ""  # no suggestion: a sentence
OPTIONS = """
condense   epochs             --steps
condense   iterations         --steps
condense   niter              --steps
condense   max-steps          --steps
condense   step               --steps
condense   batch              --batch-real
condense   batch-size         --batch-real
condense   learning-rate      --lr
condense   lerning-rate       --lr
condense   per-class          --ipc
condense   images-per-class   --ipc
condense   icp                --ipc
condense   model              --encoder-network
condense   arch               --encoder-network
condense   net                --encoder-network
condense   network            --encoder-network
condense   time               --minutes
condense   output             --out
condense   outdir             --out
condense   output_dir         --out
condense   save-path          --out
condense   gpu                --device
condense   cuda               --device
condense   dataset            --data
condense   imagesize          --image-size
condense   augmentation       --augment
condense   augmnet            --augment
condense   num-workers        --workers
condense   random-seed        --seed
condense   fp16               --precision
condense   amp                --precision
condense   compile            --compiled
condense   algorithm          --method
condense   metod              --method
condense   selection          --init
condense   weights            -
condense   n-classes          -
condense   verbose            -
condense   experiences        -
condense   tasks              -
condense   trials             -
condense   optimizer          -
condense   memory             -
condense   overwrite          -
condense   n-orders           -
condense   n-images           --ipc
condense   num_exp            --seeds
condense   eval-mode          -
condense   plot               -
condense   net-depth          --encoder-network
select     workres            --workers
select     method             --selection
select     images-per-class   --ipc
select     epochs             -
select     lr                 -
select     network            -
select     steps              -
evaluate   epochs             --protocol
evaluate   iterations         --protocol
evaluate   lr                 --protocol
evaluate   batch-size         --protocol
evaluate   architectures      --network
evaluate   model              --network
evaluate   num-networks       --networks
evaluate   repeats            --networks
evaluate   baselines          --against
evaluate   augmentation       --augment
evaluate   ipc                -
evaluate   output             -
evaluate   time               -
evaluate   eval-mode          --network
replay     worker             --workers
replay     epochs             --train-epochs --er-epochs
replay     lr                 --set --er-lr
replay     batch-size         --er-batch --set
replay     per-class          --ipc
replay     mem-size           --ipc
replay     buffer-size        --ipc
replay     buffer             --memory
replay     n-experiences      --experiences
replay     tasks              --experiences
replay     n-tasks            --experiences
replay     model              --network
replay     strategy           --regime
replay     method             --memory
replay     num-orders         --orders
replay     rankers            -
replay     classes-per-exp    --experiences
replay     mem_sz             --ipc
search     epochs             --train-steps --full-epochs
search     lr                 --set
search     keep               --set
search     batch              --set
search     model              --space --encoder-network
search     time               --budget
search     minutes            --budget
search     n-trials           --trials
search     candidates         --trials
search     method             --rankers
search     per-class          --ipc
search     seeds              --trainings --seed
search     search-strategy    --strategy
search     gpus               --device
search     memory             -
search     scenario           -
search     depth              --space
code       workers            -
code       output             --out
code       gpu                -
export     output             --to
export     outdir             --to
export     run                -
inspect    out                -
inspect    epochs             -
report     force              --overwrite
report     output             --out
demo       gpu                --device
demo       output_dir         --out
demo       epochs             -
list       ipc                -
"""
COMMANDS = """
condence    condense
condens     condense
distill     condense
distillation condense
train       condense evaluate
eval        evaluate
evalute     evaluate
benchmark   evaluate
test        evaluate
nas         search
serach      search
cl          replay
continual   replay
relpay      replay
ls          list
lists       list
info        inspect
coreset     select
method      methods
reports     report
plot        report
frobnicate  -
xyz         -
"""
VALUES = [
    ("condense --method mtt", NONE),
    ("condense --method idm", NONE),
    ("condense --method DM", "dm"),
    ("condense --method dmm", "dm"),
    ("condense --method kip", "krr"),
    ("condense --method distribution-matching", "dm"),
    ("condense --data CIFAR-10", "cifar10"),
    ("condense --data Fashion-MNIST", "fashionmnist"),
    ("condense --data mnits", "mnist"),
    ("condense --data emnist", NONE),
    ("condense --data imagenet", NONE),
    ("condense --device gpu", "cuda"),
    ("condense --device gpu:0", "cuda"),
    ("condense --device tpu", NONE),
    ("condense --precision fp16", "mixed bf16"),
    ("condense --precision bfloat16", "bf16"),
    ("condense --precision fp64", NONE),
    ("condense --storage int8", "uint8"),
    ("condense --storage jpeg", NONE),
    ("condense --layout HWC", "NHWC"),
    ("condense --init k-means", "kmeans"),
    ("condense --init gaussian", "noise"),
    ("condense --augment hflip", "flip"),
    ("condense --augment cutmix", NONE),
    ("condense --encoder-network resnet", "ResNet18"),
    ("condense --encoder-network convnet", "ConvNet"),
    ("condense --set learning_rate=3", "lr"),
    ("select --selection K-Center", "kcenter"),
    ("select --selection forgetting", NONE),
    ("replay --ipc 1 --memory randm", "random"),
    ("replay --ipc 1 --memory ewc", NONE),
    ("replay --ipc 1 --memory dm --regime der", "der++"),
    ("replay --ipc 1 --memory dm --regime scratch", "from-scratch"),
    ("replay --ipc 1 --memory dm --network resnet", "ResNet18"),
    ("search --rankers dmm", "dm"),
    ("search --rankers naswot", "nwot"),
    ("search --rankers snip", NONE),
    ("search --strategy bayesian", "tpe"),
    ("search --engine process", "pool"),
    ("search --space nas-bench-201", "nasbench201"),
    ("search --score acc", "accuracy"),
    ("list method", "methods"),
    ("list rankings", "rankers"),
    ("list datasets", "data"),
    ("list xyz", NONE),
]


def offered(err):
    """The words that an error offers."""
    told = err.partition("Did you mean ")[2].partition("?")[0]
    return " ".join(part.split("'")[1].split()[0] for part in told.split(" or ") if part)


@pytest.mark.parametrize("row", OPTIONS.strip().splitlines(), ids=lambda row: " ".join(row.split()[:2]))
def test_wrong_options(cli, tmp_path, monkeypatch, row):
    monkeypatch.chdir(tmp_path)
    command, word, *right = row.split()
    code, _, err = cli(command, f"--{word}", "3")
    assert code == 2
    assert f"No such option '--{word}'. " in err
    assert offered(err) == ("" if right == ["-"] else " ".join(right))
    assert err.endswith((".\n", "?\n")), "a sentence"
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("row", COMMANDS.strip().splitlines(), ids=lambda row: row.split()[0])
def test_wrong_commands(cli, row):
    word, *right = row.split()
    code, _, err = cli(word)
    assert code == 2
    assert f"No such command {word!r}. " in err
    assert offered(err) == ("" if right == ["-"] else " ".join(right))
    assert right != ["-"] or "`condensekit --help` lists the commands." in err


@pytest.mark.parametrize(("words", "right"), VALUES)
def test_wrong_values(cli, tmp_path, monkeypatch, words, right):
    monkeypatch.chdir(tmp_path)
    given = words.split()
    data = [] if "--data" in given or given[0] == "list" else ["--data", "digits"]
    count = ["--ipc", "1"] if given[0] in ("condense", "select") else []
    length = ["--steps", "1"] if given[0] == "condense" else []
    out = [] if given[0] == "list" else ["--out", "run"]
    code, _, err = cli(*given, *data, *count, *length, *out)
    assert code == 2
    assert offered(err) == right, err
    assert not list(tmp_path.iterdir())


def test_all_wrong_options_are_listed(cli):
    _, _, err = cli("condense", "--iterations", "3", "-ipc", "4", "--set", "lr=3", "--gpu=1", "--", "--nothing")
    assert "No such option '--iterations'. Did you mean '--steps'?" in err
    assert "No such option '-ipc'. Did you mean '--ipc'?" in err
    assert "No such option '--gpu'. Did you mean '--device'?" in err
    assert "--nothing" not in err


@pytest.mark.parametrize(
    ("word", "told"),
    [
        ("--verbose", "`condensekit --help` lists the commands."),
        ("--versoin", "Did you mean '--version'?"),
        ("--experiences", "It is an option of replay."),
        ("--usage", "Did you mean '--help'?"),
        ("-x", "`condensekit --help` lists the commands."),
    ],
)
def test_wrong_options_before_the_command(cli, word, told):
    code, _, err = cli(word)
    assert code == 2
    assert err.endswith(f"No such option '{word}'. {told}\n")


def test_an_option_of_another_command_is_told(cli):
    assert "It is an option of replay." in cli("condense", "--experiences", "5")[2]
    assert "The classes are those of the data." in cli("condense", "--n-classes", "5")[2]
