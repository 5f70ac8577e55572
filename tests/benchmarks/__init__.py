"""Benchmarks, run by hand: speed, growth and accuracy of training, search, prediction, files and serving.

    python -m tests.benchmarks.training_speed --torch-python PYTHON_WITH_TORCH
    python -m tests.benchmarks.time_to_accuracy --torch-python PYTHON_WITH_TORCH
    python -m tests.benchmarks.scaling
    python -m tests.benchmarks.accuracy NAMES
    python -m tests.benchmarks.listening RUNS
    python -m tests.benchmarks.seeing --run RUN --mnist FILE
    python -m tests.benchmarks.predicting speed|memory|ray --run RUN --torch-python PYTHON_WITH_TORCH
    python -m tests.benchmarks.reading --run RUN
    python -m tests.benchmarks.latency RUN --torch-python PYTHON_WITH_TORCH
    python -m tests.benchmarks.searching overhead|memory|workers
    python -m tests.benchmarks.serving_load VERSION --others-python PYTHON_WITH_LITSERVE_AND_MLSERVER

They take minutes and want a machine with nothing else to do; pytest collects none of them. PyTorch comes with
`pip install '.[bench]'`, or lives in an environment of its own:
`python -m venv VENV && VENV/bin/pip install torch numpy pillow scipy`.

    contender.py answering.py                             a process for each contender, and how it is talked to
    torch_paper.py torch_fast.py keras_naive.py           the others, and
    kfusion_itself.py kfusion_race.py kfusion_growth.py   kfusion, through its own training function
    convolution_roof.py convolutions.py                   the fastest that the convolutions could go
    serving_litserve.py serving_mlserver.py               the other servers, around the same exported model
    kfusion_predict.py torch_predict.py                   whole inputs answered, by kfusion and by a DataLoader script
    latency_files.py latency_ways.py latency_torch.py     one answer in each runtime
    photographs.py                                        digits as a camera would see them
    arrays.py figures.py tables.py others.py              data in, figures out; was the machine idle?
"""

import os

# Set before TensorFlow is imported: its start-up chatter is no figure.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
