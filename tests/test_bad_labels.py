"""Broken labels and groups: each gives one line that names the file, the rule and what was found."""

import numpy as np
import pytest

from tests.folders import line, write_digits, write_own

UTF_8 = "must be text in UTF-8, which spreadsheets call 'CSV UTF-8' where one saves the table"


@pytest.fixture
def digits(tmp_path):
    write_digits(tmp_path / "digits", "competition")
    return tmp_path / "digits"


@pytest.fixture
def own(tmp_path):
    write_own(tmp_path / "own", np.arange(30) % 3)
    return tmp_path / "own"


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        ("id,number\n0,1\n", "must have the columns row_id and label. Found: 'id', 'number'"),
        ("label,Label,id\n0,1,0\n", "must have one column label. Found: 'label', 'Label'"),
        ("id,index,label\n0,0,1\n", "must have one column id or index. Found: 'id', 'index'"),
        ("row_id,label\n", "must have a header and at least one row. Found: no rows"),
        ("", "must have a header and at least one row. Found: no rows"),
        ("row_id,label\n0,1\n1,2,3\n", "each line must have 2 fields, as the header has. Found: 3 in line 3"),
        ("row_id,label\n0,1\n1\n", "each line must have 2 fields, as the header has. Found: 1 in line 3"),
        ("row_id,label\n0,1\n1,10\n", "labels must be digits 0-9. Found: 10 in row 1"),
        ("row_id,label\n0,1\n1,-1\n", "labels must be digits 0-9. Found: -1 in row 1"),
        ("row_id,label\n0,1\n1,2.5\n", "label must be whole numbers. Found: '2.5' in row 1"),
        ("row_id,label\n0,1\n1,two\n", "label must be whole numbers. Found: 'two' in row 1"),
        ("row_id,label\n0,1\n1,\n", "label must be whole numbers. Found: '' in row 1"),
        ("row_id,label\n0,1\n0,1\n", "row_id must be 0 to 1, each once. Found: 0 in place of 1"),
        ("row_id,label\n1,1\n2,1\n", "row_id must be 0 to 1, each once. Found: 1 in place of 0"),
        ('row_id,label\n0,"1\n', "must be a CSV file. Found: unexpected end of data"),
        (b"row_id,label\n0,\xff\n", f"{UTF_8}. Found: byte 0xff"),
        (b"\x89PNG\r\n\x1a\n\x00\x00", f"{UTF_8}. Found: byte 0x89"),
    ],
)
def test_label_tables_that_cannot_be_used(digits, text, rule):
    (digits / "y_train.csv").write_bytes(text if isinstance(text, bytes) else text.encode())
    assert line(digits) == f"{digits / 'y_train.csv'}: {rule}"


@pytest.mark.parametrize(
    ("labels", "rule"),
    [
        (
            np.arange(30) % 3 + 1,
            "labels must be names, or whole numbers that count from 0 without gaps. Found: 1 in row 0",
        ),
        (
            np.arange(30) - 1,
            "labels must be names, or whole numbers that count from 0 without gaps. Found: -1 in row 0",
        ),
        (np.arange(30) % 3 / 2, "labels must be whole numbers. Found: 0.5 in row 1"),
        (np.full(30, np.nan), "labels must be whole numbers. Found: nan in row 0"),
        (np.full(30, 2**63, np.uint64), "labels must be whole numbers. Found: 9223372036854775808 in row 0"),
        (np.zeros(30, int), "must have at least two classes. Found: only '0'"),
        (np.array(["cat"] * 30), "must have at least two classes. Found: only 'cat'"),
        (np.array(["cat", ""] * 15), "each row must have a label. Found: none in row 1"),
        (np.array(["cat", "dog", "nan"] * 10), "each row must have a label. Found: 'nan' in row 2"),
        (np.eye(30), "must have the shape (N,). Found: shape (30, 30)"),
        (np.array([b"\xff"] * 30), "must be text in UTF-8. Found: byte 0xff"),
        (np.array([None] * 30), "must hold numbers or texts, not pickled Python objects. Found: dtype object"),
    ],
)
def test_own_labels_that_cannot_be_used(own, labels, rule):
    np.save(own / "labels.npy", labels, allow_pickle=True)
    assert line(own).startswith(f"{own / 'labels.npy'}: {rule}")


def test_labels_twice_and_groups_of_another_length(own):
    np.save(own / "groups.npy", np.arange(29))
    assert line(own).endswith("groups.npy: must have as many rows as the images (30). Found: 29 rows")
    np.save(own / "groups.npy", np.arange(30) / 2)
    assert line(own).endswith("groups.npy: must hold integers or texts. Found: dtype float64")
    (own / "labels.csv").write_text("label\n0\n")
    assert line(own).endswith("must hold its labels once. Found: labels.npy and labels.csv")
