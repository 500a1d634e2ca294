"""The fuzzing of the quick tests, by so many lines as a storm has time for: SAPWOOD_STORM=full says how many."""

import pytest

from test_fuzz import (
    shop,  # noqa: F401 - a fixture
    test_a_command_line_as_a_process_of_its_own_ends_in_the_same_way,  # noqa: F401 - run here too
    test_a_command_line_ends_with_a_code_that_is_documented_and_without_a_traceback,  # noqa: F401 - run here too
    test_stored_arguments_are_read_or_refused,  # noqa: F401 - run here too
)

pytestmark = pytest.mark.timeout(7200)
