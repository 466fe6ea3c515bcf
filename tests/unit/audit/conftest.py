from tests.unit.accounts.conftest import as_user, no_rates, operator, organisation, person, second_operator

__all__ = ["as_user", "no_rates", "operator", "organisation", "person", "second_operator"]
