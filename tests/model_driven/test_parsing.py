"""What reads requests, put to every place of every operation that is served."""

import json
from collections.abc import Iterator
from typing import Any

import pytest
from botocore.model import OperationModel
from botocore.validate import ParamValidator
from hypothesis import given, note, seed
from hypothesis import strategies as st

from moorage.errors import SerializationException, ServiceError, ValidationError, ValidationException
from moorage.wire import awsjson, awsquery
from tests.model_driven import cases
from tests.model_driven.cases import Case
from tests.model_driven.combinations import SEED, documents
from tests.model_driven.services import models

JSON = models("sagemaker")
QUERY = (*models("iam"), *models("sts"))


def named(operation: OperationModel) -> str:
    return str(operation.name)


def parse(case: Case) -> dict[str, Any]:
    if case.operation.service_model.metadata["protocol"] == "query":
        return awsquery.parse(case.operation, case.form)
    return awsjson.parse(case.operation, json.dumps(case.document).encode())


def sendable(made: Iterator[Case]) -> list[Case]:
    """Without those that a form cannot express."""
    return [case for case in made if case.is_sendable]


@pytest.mark.parametrize("operation", (*JSON, *QUERY), ids=named)
def test_what_is_valid_is_accepted(operation: OperationModel) -> None:
    for case in sendable(cases.valid(operation)):
        try:
            parse(case)
        except ServiceError as error:
            pytest.fail(f"{case}: {error.message}")


@pytest.mark.parametrize("operation", (*JSON, *QUERY), ids=named)
def test_a_broken_constraint_is_told_with_its_member(operation: OperationModel) -> None:
    for case in sendable(cases.invalid(operation)):
        try:
            parse(case)
        except (ValidationException, ValidationError) as error:
            assert f"at '{case.where}' failed to satisfy constraint: " in error.message, case
            assert case.rule in error.message, case
        else:
            pytest.fail(f"accepted: {case}")


@pytest.mark.parametrize("operation", JSON, ids=named)
def test_a_member_of_another_type_cannot_be_read(operation: OperationModel) -> None:
    for case in cases.mistyped(operation):
        with pytest.raises(SerializationException):
            pytest.fail(f"accepted: {case}, as {parse(case)}")


@pytest.mark.parametrize("operation", QUERY, ids=named)
def test_a_field_of_another_type_is_named(operation: OperationModel) -> None:
    for case in cases.mistyped(operation):
        with pytest.raises(ValidationError) as caught:
            pytest.fail(f"accepted: {case}, as {parse(case)}")
        assert case.where in caught.value.message


# --- Combined ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("operation", [each for each in (*JSON, *QUERY) if each.input_shape], ids=named)
@seed(SEED)
@given(data=st.data())
def test_combinations_of_what_is_valid_are_accepted(operation: OperationModel, data: st.DataObject) -> None:
    note(f"MODEL_DRIVEN_SEED={SEED}")
    document = data.draw(documents(operation.input_shape))
    parse(Case(operation, (), "valid", document))


# --- The cases themselves ------------------------------------------------------------------------------


@pytest.mark.parametrize("operation", (*JSON, *QUERY), ids=named)
def test_what_is_called_valid_here_is_valid_for_botocore(operation: OperationModel) -> None:
    if operation.input_shape is None:
        return
    for case in cases.valid(operation):
        problems = ParamValidator().validate(without_nulls(case.document), operation.input_shape)
        assert not problems.has_errors(), f"{case}: {problems.generate_report()}"


def without_nulls(document: Any) -> Any:
    if isinstance(document, dict):
        return {name: without_nulls(value) for name, value in document.items() if value is not None}
    return [without_nulls(each) for each in document] if isinstance(document, list) else document
