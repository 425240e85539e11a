// Asks for each piece of the page again and shows what the response fields say about the way it came.
const pieces = ["/", "/style.css", "/images/seoul.svg", "/images/frankfurt.svg", "/images/virginia.svg", "/api/time"];

// The last member of Cache-Status is that of the nearest cache, and its name is the node's.
const nearest = (status) => (status || "").split(",").pop().split(";")[0].trim().replace(/"/g, "");

function cell(row, text) {
  row.insertCell().textContent = text;
}

async function show() {
  const table = document.getElementById("pieces");
  const rows = [];
  for (const path of pieces) {
    const response = await fetch(path, { cache: "no-store" });
    const status = response.headers.get("cache-status") || "";
    const row = document.createElement("tr");
    cell(row, path);
    cell(row, String(response.status));
    cell(row, response.headers.get("age") || "");
    cell(row, status);
    rows.push(row);
    if (path === "/" && nearest(status)) {
      document.getElementById("edge").textContent = nearest(status);
    }
    if (path === "/api/time") {
      row.cells[0].textContent += ": " + (await response.json()).date;
    }
  }
  table.replaceChildren(...rows);
}

document.getElementById("again").addEventListener("click", show);
show();
