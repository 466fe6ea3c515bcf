"""Write the two public datasets as CSV, read from the installed packages (statsmodels, scikit-learn).

Run with the programs' Python: export.py FOLDER. Also prints, as JSON, the coefficient of lncoins of the demo's model
fitted directly on the data, which the demo compares with the number that came out of stage 2.
"""

import json
import sys
from pathlib import Path

import statsmodels.api as sm
from sklearn.datasets import load_diabetes
from statsmodels.datasets import randhie

COLUMNS = ["lncoins", "idp", "lpi", "fmde", "physlm", "disea", "hlthg", "hlthf", "hlthp"]

folder = Path(sys.argv[1])
folder.mkdir(parents=True, exist_ok=True)
rand = randhie.load_pandas().data
rand.to_csv(folder / "rand-hie.csv", index=False)
diabetes = load_diabetes(as_frame=True, scaled=False).frame
diabetes["sex"] = diabetes["sex"].astype(int)
diabetes.to_csv(folder / "diabetes-progression.csv", index=False)

fit = sm.GLM(rand["mdvis"], sm.add_constant(rand[COLUMNS].astype(float)), family=sm.families.Poisson()).fit(
    cov_type="HC0"
)
print(json.dumps({"lncoins": fit.params["lncoins"], "rows": [len(rand), len(diabetes)]}))
