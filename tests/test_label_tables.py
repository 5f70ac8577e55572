"""Label tables as people write them: whose label it is, which column it is in, and what a class is called."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from kfusion.data.tables import nearly_equal, plain_numbers, read_classes, read_digits


def written(folder: Path, text: str, encoding: str = "utf-8", name: str = "labels.csv") -> Path:
    (folder / name).write_text(text, encoding=encoding, newline="")
    return folder / name


def classes(folder: Path, text: str) -> list[str]:
    """The class of each row."""
    label, names = read_classes(written(folder, text))
    return [names[number] for number in label]


@pytest.mark.parametrize(
    "text",
    [
        "id,label\n2,c\n0,a\n1,b\n",
        "label,ID\nc,3\na,1\nb,2\n",
        "Index,note,Label\n1,x,b\n0,x,a\n2,x,c\n",
        ",label\n2,c\n0,a\n1,b\n",
        "Unnamed: 0,label\n2,c\n0,a\n1,b\n",
        ",label\n0,a\n1,b\n0,c\n",
        ",Unnamed: 0,label\n7,9,a\n2,8,b\n5,1,c\n",
        "row_id,id,label\n2,9,c\n0,9,a\n1,9,b\n",
        "id,label\n5,a\n7,b\n90,c\n",
        "id,label\nimg2,a\nimg10,b\nimg11,c\n",
    ],
)
def test_a_column_of_ids_says_whose_label_it_is(tmp_path, text):
    assert classes(tmp_path, text) == ["a", "b", "c"]


@pytest.mark.parametrize(
    "text",
    [
        "target,id\na,0\nb,1\n",
        "Label,filename\na,x.png\nb,y.png\n",
        "speaker,Class\nx,a\ny,b\n",
        "label,category\na,x\nb,y\n",
        "file,kind\nx,a\ny,b\n",
        "anything\na\nb\n",
        "note;Digit\nx;a\ny;b\n",
        "note\tlabel\nx\ta\ny\tb\n",
        '"note, old";"label"\r\n"x;y";a\r\nz;b\r\n\r\n',
    ],
)
def test_the_column_with_the_classes_is_found_by_its_name(tmp_path, text):
    assert classes(tmp_path, text) == ["a", "b"]


def test_utf_16_as_spreadsheets_and_shells_write_it_is_read(tmp_path):
    for encoding in ("utf-16", "utf-16-le", "utf-16-be"):
        assert read_digits(written(tmp_path, "row_id\tlabel\n1\t4\n0\t3\n", encoding)).tolist() == [3, 4]
    assert read_digits(written(tmp_path, "ID;Target\n1;4\n0;3\n", "utf-8-sig")).tolist() == [3, 4]


def test_a_workbook_and_a_tab_separated_text_say_whose_label_it_is(tmp_path):
    pytest.importorskip("openpyxl", reason="needs the extra excel")
    table = pd.DataFrame({"ID": [2, 0, 1], "note": [None, "x", None], "Class": ["c", "a", "b"]})
    table.to_excel(tmp_path / "labels.xlsx", index=False)
    table.to_csv(tmp_path / "labels.tsv", index=False, sep="\t")
    for name in ("labels.xlsx", "labels.tsv"):
        label, names = read_classes(tmp_path / name)
        assert [names[number] for number in label] == ["a", "b", "c"]


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        ("id,label\n9,a\n7,b\n", "id must be 0 to 1, each once. Found: 7 in place of 0"),
        ("id,label\nb7,a\na9,b\n", "id must be whole numbers, which say the row that a label is of, or ascend"),
        ("label,label\na,b\nb,a\n", "must have one column label. Found: 'label', 'label'"),
        ("class,target\na,b\nb,a\n", "Found: 'class', 'target'"),
        ("one,other\na,b\nb,a\n", "must have one column label (or class, target, y …). Found: 'one', 'other'"),
        ("label\na\nNaN\n", "each row must have a label. Found: 'NaN' in row 1"),
        ("label\na\nNone\n", "each row must have a label. Found: 'None' in row 1"),
    ],
)
def test_what_may_mean_several_things_is_refused_and_named(tmp_path, text, rule):
    with pytest.raises(ValueError) as error:
        read_classes(written(tmp_path, text))
    assert str(error.value).startswith(f"{tmp_path / 'labels.csv'}: ") and rule in str(error.value)


def test_one_number_is_one_class_however_it_is_written(tmp_path):
    assert classes(tmp_path, "label\n01\n1\n0.0\n") == ["1", "1", "0"]
    np.save(tmp_path / "labels.npy", np.array(["1.0", "0.0", "1.0"]))
    assert read_classes(tmp_path / "labels.npy")[1] == ("0", "1")
    assert plain_numbers(["01", "02"]) == {"01": "01", "02": "02"}
    assert plain_numbers(["01", "1", "3.0"]) == {"01": "1", "1": "1", "3.0": "3"}
    assert plain_numbers(["01", "1", "one"]) == {"01": "01", "1": "1", "one": "one"}


def test_classes_that_differ_by_case_alone_are_said():
    assert nearly_equal(["THREE", "Three", "two"]) == [
        "classes that differ only by case, taken as different ones: 'THREE' and 'Three'"
    ]
    assert nearly_equal(["two", "three"]) == []
